"""tests/matrix.sh with stand-ins for the environment, the tests and the quickstart."""

import json
import os
import shutil
import subprocess

import pytest
from helpers.matrix import BEGIN, END, ROWS, STEPS, closing_words, read_results, render
from helpers.paths import ROOT

ROW = "torch2.4-py311"
# Each says what it is called with, and does what a file of its name in $PLAN says.
STAND_IN = """
set -- {name} "$PWD" "$MISALIGN_DET_TORCH" "$MISALIGN_DET_STACK" "${{VIRTUAL_ENV:-none}}" "$@"
echo "$@" >>"$PLAN/calls"
[ ! -f "$PLAN/{name}" ] || . "$PLAN/{name}"
echo "{last}"
"""
SCRIPTS = {
    "tools/setup_environment.sh": ("environment", "==> The environment is ready"),
    "tests/run.sh": ("suite", "== 7 passed, 1 skipped in 3.21s =="),
    "tools/quickstart.sh": ("quickstart", "shapes: AP 55.1"),
}


@pytest.fixture
def matrix(tmp_path):
    """Run the script of a repository of stand-ins: exit status, output, and what was called."""
    repository, plan = tmp_path / "repository", tmp_path / "plan"
    for name, (step, last) in SCRIPTS.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(STAND_IN.format(name=step, last=last))
    (repository / "tests/helpers").mkdir()
    for name in ("tests/matrix.sh", "tests/helpers/matrix.py"):
        shutil.copy(ROOT / name, repository / name)
    (repository / "tests/README.md").write_text(f"before\n\n{BEGIN}old\n{END}\nafter\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "stand-ins"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    (tmp_path / "bin").mkdir()
    plan.mkdir()
    for version in {row.python for row in ROWS}:
        python = tmp_path / f"bin/python{version}"
        python.write_text('#!/bin/sh\n[ "$1 $2" = "-m venv" ] && mkdir -p "$3"\n')
        python.chmod(0o755)

    def matrix(*arguments, **plans):
        for path in plan.iterdir():
            path.unlink()
        for step, text in plans.items():
            (plan / step).write_text(text)
        done = subprocess.run(
            ["bash", repository / "tests/matrix.sh", *arguments],
            capture_output=True,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "MISALIGN_DET_MATRIX": str(tmp_path / "clones"),
                "VIRTUAL_ENV": "/another",
                "PLAN": str(plan),
            },
        )
        calls = plan / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, done.stdout + done.stderr, [line.split() for line in lines]

    matrix.tests = repository / "tests"
    matrix.clones = tmp_path / "clones"
    return matrix


def test_a_row_runs_in_a_clone_and_is_not_repeated(matrix):
    status, text, calls = matrix(ROW)
    assert status == 0, text
    assert [call[0] for call in calls] == list(STEPS)
    clone = matrix.clones / ROW
    assert [call[1:] for call in calls] == [[str(clone), "2.4.1", "onedl", "none"]] * 3
    assert not clone.exists()  # it has passed
    results = read_results(matrix.tests)
    assert [(r["row"], r["step"], r["result"]) for r in results] == [
        (ROW, s, "passed") for s in STEPS
    ]
    assert [r["said"] for r in results[1:]] == ["7 passed, 1 skipped", "AP 55.1"]
    page = (matrix.tests / "README.md").read_text()
    assert page == f"before\n\n{BEGIN}\n{render(results)}\n{END}\nafter\n" and ROW in page
    assert matrix(ROW)[2] == []
    assert [call[0] for call in matrix("--again", "--steps", "quickstart", ROW)[2]] == [
        "environment", "quickstart",
    ]  # fmt: skip


def test_a_killed_run_goes_on_where_it_was(matrix):
    status, _, calls = matrix(ROW, suite="kill -9 0")  # its whole group
    assert status != 0 and [call[0] for call in calls] == ["environment", "suite"]
    results = read_results(matrix.tests)
    assert [result["step"] for result in results] == ["environment"]
    assert render(results) in (matrix.tests / "README.md").read_text()
    assert [call[0] for call in matrix(ROW)[2]] == ["suite", "quickstart"]


def test_a_failure_is_recorded_and_tried_again(matrix):
    said = "echo '== 2 failed, 5 passed in 9s =='; exit 1"
    status, text, calls = matrix(ROW, "torch2.7-py312", suite=said)
    assert status == 1 and f"failed: {ROW} torch2.7-py312" in text
    assert [call[0] for call in calls] == ["environment", "suite"] * 2
    assert read_results(matrix.tests)[-1]["said"] == "2 failed, 5 passed"
    page = (matrix.tests / "README.md").read_text()
    assert "failed (" in page and "2 failed, 5 passed" in page
    assert [call[0] for call in matrix(ROW)[2]] == ["suite", "quickstart"]
    assert "2 failed" not in (matrix.tests / "README.md").read_text().split("torch2.7")[0]


def test_a_part_of_the_tests_is_not_the_whole(matrix):
    _, _, calls = matrix("--steps", "environment suite", ROW, "--", "-m", "not slow")
    assert calls[-1][5:] == ["-m", "not", "slow"]
    page = (matrix.tests / "README.md").read_text()
    assert "passed a part, `'-m' 'not slow'`" in page
    assert [call[0] for call in matrix(ROW)[2]] == ["suite", "quickstart"]
    assert "a part" not in (matrix.tests / "README.md").read_text()


def test_a_stack_that_cannot_work_is_refused_with_the_scripts_own_words(matrix):
    row = next(row for row in ROWS if row.refusal)
    script = (ROOT / "tools/setup_environment.sh").read_text()
    assert row.refusal.split(" with")[0] in script
    said = f".venv has it; {row.refusal} is needed"
    status, _, calls = matrix(row.name, environment=f'echo "error: $PWD/{said}" >&2; exit 1')
    assert status == 0 and [call[0] for call in calls] == ["environment"]
    (result,) = read_results(matrix.tests)
    assert (result["result"], result["said"]) == (
        "refused",
        f".venv has it; {row.refusal} is needed",
    )
    assert matrix(row.name)[2] == []
    assert matrix(row.name, "--again", environment="exit 1")[0] == 1  # for another reason


def test_unknown_names_are_refused(matrix):
    for arguments in (["torch1"], ["--steps", "suit", ROW]):
        status, text, calls = matrix(*arguments)
        assert status == 1 and "error: " in text and calls == []


def test_what_is_taken_from_a_log():
    log = "== 3 failed, 2011 passed, 9 skipped, 4 xfailed in 2402.31s (0:40:02) =="
    assert closing_words("suite", log) == "3 failed, 2011 passed, 9 skipped, 4 xfailed"
    assert closing_words("suite", "==> Checking the style\nE501 too long\n") == "E501 too long"
    assert closing_words("environment", "==> x\nerror: no C++\nmore") == "no C++"


def test_the_table_is_the_one_of_the_results():
    page = (ROOT / "tests/README.md").read_text()
    assert f"{BEGIN}\n{render(read_results())}\n{END}" in page
    for line in (ROOT / "tests/matrix.jsonl").read_text().splitlines():
        assert "/home/" not in line and "/root/" not in line and json.loads(line)["commit"]
