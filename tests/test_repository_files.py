"""The files beside the code: workflow, hooks, templates, change log, citation, type marker."""

import os
import re
import subprocess
import tarfile
import zipfile

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from helpers.paths import ROOT

import misalign_det

RUN = (ROOT / "tests/run.sh").read_text()
CONSTRAINTS = (ROOT / "tools/environment/constraints.txt").read_text().splitlines()


def load(path):
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def job():
    return load(".github/workflows/test.yml")["jobs"]["test"]


def test_the_workflow_runs_the_tests(job):
    assert job["steps"][-1]["run"] == "bash tests/run.sh"


def test_the_workflow_may_only_read():
    workflow = load(".github/workflows/test.yml")
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in (ROOT / ".github/workflows/test.yml").read_text()


def test_actions_have_a_major_version(job):
    used = [step["uses"] for step in job["steps"] if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z/-]+@v\d+", action)


@pytest.fixture(scope="module")
def release():
    return load(".github/workflows/release.yml")


def test_a_release_writes_only_what_it_must(release):
    assert release["permissions"] == {"contents": "read"}
    (build,) = release["jobs"].values()
    assert build["permissions"] == {
        "contents": "write", "id-token": "write", "attestations": "write",
    }  # fmt: skip
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    used = [step["uses"] for step in build["steps"] if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z/-]+@v\d+", action) for action in used)


@pytest.mark.parametrize(
    ("tag", "changes", "fits"),
    [
        (f"v{misalign_det.__version__}", "## [{}] - 2026-12-01", True),
        (f"v{misalign_det.__version__}", "## [Unreleased]", False),
        ("v99.0.0", "## [{}] - 2026-12-01", False),
    ],
)
def test_only_the_tag_of_a_version_in_the_changelog_is_released(
    release, tmp_path, tag, changes, fits
):
    (step,) = (
        step
        for step in release["jobs"]["build"]["steps"]
        if step.get("name") == "The tag is the version"
    )
    (tmp_path / "misalign_det").mkdir()
    version = (ROOT / "misalign_det/version.py").read_text()
    (tmp_path / "misalign_det/version.py").write_text(version)
    (tmp_path / "CHANGELOG.md").write_text(changes.format(misalign_det.__version__) + "\n")
    done = subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=tmp_path,
        env={**os.environ, "GITHUB_REF_NAME": tag},
    )
    assert (done.returncode == 0) == fits


def test_the_source_distribution_makes_the_same_wheel(tmp_path):
    (archive,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path / "sdist"))
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("misalign_det-*")
    names = []
    for root in (ROOT, unpacked):
        builder = WheelBuilder(str(root))
        (wheel,) = builder.build(directory=str(tmp_path / root.name), versions=["standard"])
        names.append(set(zipfile.ZipFile(wheel).namelist()))
    assert names[0] == names[1]
    for name in ("misalign_det/py.typed", "misalign_det/.mim/tools/train.py"):
        assert name in names[0]
    assert any(name.endswith(".js") for name in names[0])  # of the report


def test_the_cached_wheel_changes_with_torch_and_mmcv(job, tmp_path):
    """Both as tools/setup_environment.sh and the constraints name them."""
    (step,) = (step for step in job["steps"] if step.get("id") == "mmcv")
    output = tmp_path / "output"
    command = ["bash", "-e", "-c", step["run"]]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "GITHUB_OUTPUT": str(output)}, check=True)
    script = (ROOT / "tools/setup_environment.sh").read_text()
    torch = re.search(r"^TORCH=([\d.]+)$", script, re.MULTILINE)[1]
    onedl = (ROOT / "tools/environment/constraints-onedl.txt").read_text()
    mmcv = re.search(r"^onedl-mmcv==[\d.]+$", onedl, re.MULTILINE)[0]
    assert output.read_text() == f"key={mmcv}-torch{torch}-cpu-py3.11\n"


def test_the_cache_is_where_the_wheel_is_kept(job):
    steps = [step for step in job["steps"] if "actions/cache" in step.get("uses", "")]
    assert [step["with"]["path"] for step in steps] == ["~/.cache/misalign_det"] * 2


def test_hooks_check_what_the_tests_check():
    hooks = {
        hook["id"]: (repo.get("rev"), hook)
        for repo in load(".pre-commit-config.yaml")["repos"]
        for hook in repo["hooks"]
    }
    for name in ("ruff-check", "ruff-format"):
        version = hooks[name][0].removeprefix("v")
        assert f"ruff=={version}" in CONSTRAINTS
    lines = [line.strip() for line in RUN.splitlines()]
    assert {"python -m ruff check .", "python -m ruff format --check ."} <= set(lines)
    assert hooks["mypy"][1]["entry"] in lines


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_issue_forms_are_complete(name):
    form = load(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_change_log_has_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", misalign_det.__version__]


def test_the_citation_is_of_this_version():
    citation = load("CITATION.cff")
    assert citation["version"] == misalign_det.__version__
    assert citation["title"] == "misalign_det" and citation["license"] == "Apache-2.0"
    assert len(citation["references"]) == 3
    for reference in citation["references"]:
        assert reference["title"] and reference["authors"]


def test_the_wheel_says_that_it_has_types():
    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {"misalign_det/__init__.py", "misalign_det/py.typed"} <= files
