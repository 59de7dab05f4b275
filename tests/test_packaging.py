"""What mim and pip read: the index of models, the metadata, the shell scripts."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

import mmdet
import pytest
import yaml
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

import misalign_det
from misalign_det.environment import FLOORS, ONEDL, OPENMMLAB


def requirements(extra):
    """{distribution: requirement} of the package, or of one of its extras."""
    found = map(Requirement, metadata.requires("misalign_det"))
    return {
        r.name: r
        for r in found
        if (r.marker is None) == (extra is None)
        and (r.marker is None or r.marker.evaluate({"extra": extra}))
    }


def test_the_version_is_the_installed_one():
    assert metadata.version("misalign_det") == misalign_det.__version__


def test_neither_stack_is_a_hard_dependency():
    hard = set(requirements(None))
    for stack in (ONEDL, OPENMMLAB):
        assert not hard & set(stack.values())
    assert "torch" in hard


@pytest.mark.parametrize(("extra", "stack"), [("onedl", ONEDL), ("openmmlab", OPENMMLAB)])
def test_extras_and_constraints_keep_the_floors(extra, stack):
    wanted = requirements(extra)
    lines = (ROOT / f"tools/environment/constraints-{extra}.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for module, distribution in stack.items():
        assert not wanted[distribution].specifier.contains("0.0")
        assert wanted[distribution].specifier.contains(pinned[distribution])
        assert Version(pinned[distribution]) >= Version(FLOORS[module])
    assert set(pinned) <= set(wanted)  # nothing is pinned that is not asked for


def licence_family(distribution):
    """The one word that a licence's many spellings share; None if the metadata name none."""
    found = metadata.metadata(distribution)
    words = [found.get("License-Expression"), *(found.get_all("Classifier") or [])]
    words = [w for w in words if w and (w == words[0] or w.startswith("License ::"))]
    text = " ".join(words) or (found.get("License") or "").split("\n")[0]
    families = ("Apache", "BSD", "MIT", "MPL", "GPL", "PSF", "Python Software Foundation")
    known = [family for family in families if family in text]
    return known[0].replace("Python Software Foundation", "PSF") if known else None


def test_the_page_of_licences_has_every_dependency_with_its_own():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "tools/environment/licences.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    licences = {name.strip("` "): row[1] for row in rows for name in row[0].split(",")}
    extras = metadata.metadata("misalign_det").get_all("Provides-Extra")
    wanted = {name for extra in (None, *extras) for name in requirements(extra)}
    assert set(licences) == wanted | {"hatchling"}
    for name in wanted:
        try:
            family = licence_family(name)
        except metadata.PackageNotFoundError:  # of the other stack
            continue
        if name == "torch":  # its metadata name those of the parts first
            family = "BSD"
        assert family is None or family in licences[name], name


def test_every_model_of_the_index_has_its_config():
    names = []
    for part in yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]:
        content = yaml.safe_load((ROOT / part).read_text())
        collections = {collection["Name"] for collection in content["Collections"]}
        for model in content["Models"]:
            assert (ROOT / model["Config"]).is_file(), model["Config"]
            assert model["In Collection"] in collections
            assert Path(model["Config"]).stem == model["Name"]
            names.append(model["Name"])
    assert "jla_triplehead_r50_fpn_1x_coco" in names
    assert len(names) == len(set(names))


def test_no_config_shares_a_name():
    """mim finds a config by its name alone; onedl-mim searches the whole clone, .venv included."""
    names = {path.name for path in (ROOT / "configs").glob("*.py")}
    below = {path.name for path in (ROOT / "configs").glob("*/**/*.py")}
    mmdets = {path.name for path in (Path(mmdet.__file__).parent / ".mim").rglob("*.py")}
    assert len(mmdets) > 500
    assert not names & (below | mmdets)


SCRIPTS = sorted([*ROOT.glob("tools/*.sh"), *ROOT.glob("tests/*.sh"), ROOT / ".ci/run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing_in_the_scripts(script):
    command = ["shellcheck", "--external-sources", "--source-path", str(ROOT), str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_hadolint_finds_nothing_in_the_images(name):
    done = subprocess.run(["hadolint", str(ROOT / "docker" / name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_images_are_made_by_the_same_steps():
    """They differ in what CUDA needs; the user is not root, and an image says whether it works."""
    cuda, cpu = (
        (ROOT / "docker" / name).read_text().split("# Ubuntu keeps")[1]
        for name in ("Dockerfile", "Dockerfile.cpu")
    )
    assert cuda.replace("FORCE_CUDA=1 ", "") == cpu
    assert cpu.index("USER 1001") < cpu.index("setup_environment.sh")
    assert 'HEALTHCHECK CMD ["python", "-c", "import misalign_det"]' in cpu


@pytest.mark.parametrize(
    ("script", "arguments", "tool"),
    [
        (
            "slurm_train.sh",
            ["gpu", "job", "config.py", "--amp"],
            "train.py config.py --launcher slurm --amp",
        ),
        (
            "slurm_test.sh",
            ["gpu", "job", "config.py", "x.pth", "--out", "y.pkl"],
            "test.py config.py x.pth --launcher slurm --out y.pkl",
        ),
    ],
)
def test_slurm_scripts_ask_for_the_right_nodes(tmp_path, script, arguments, tool):
    """With a stand-in for srun that prints how it was called."""
    fake = tmp_path / "srun"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)

    def call(**variables):
        environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
        command = ["bash", str(ROOT / "tools" / script), *arguments]
        return subprocess.check_output(command, env=environ, text=True)

    text = call(GPUS="16", GPUS_PER_NODE="8", SRUN_ARGS="--time 60 --exclusive")
    assert text.startswith("-p gpu --job-name=job --ntasks=16 --gres=gpu:8 --ntasks-per-node=8 ")
    assert "--time 60 --exclusive " in text
    assert text.rstrip().endswith(tool)
    assert "--ntasks=2 --gres=gpu:2 --ntasks-per-node=2 " in call(GPUS="2")
    assert "--gres" not in call(GPUS="2", GPUS_PER_NODE="0")


@pytest.mark.parametrize(
    "script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh"]
)
def test_launchers_explain_themselves(script):
    done = subprocess.run(["bash", str(ROOT / "tools" / script)], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"bash tools/{script} " in done.stderr and "set -euo" not in done.stderr
