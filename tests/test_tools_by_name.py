"""`python -m misalign_det TOOL`: which tools it has, and how it starts them."""

import subprocess
import sys

import pytest
from helpers.paths import TOOLS

from misalign_det.__main__ import find_tools, list_tools, main


def test_every_tool_for_a_detector_has_its_name():
    tools = find_tools()
    folders = [TOOLS, TOOLS / "analysis", TOOLS / "dataset_converters"]
    scripts = [path for folder in folders for path in folder.glob("*.py")]
    started = {path for path in scripts if "__main__" in path.read_text()}
    assert set(tools.values()) == started
    assert {"train", "test", "predict", "export", "misalignment_report", "to_coco"} <= set(tools)
    lines = dict(line.split(maxsplit=1) for line in list_tools(tools).splitlines()[2:])
    assert set(lines) == set(tools)
    assert lines["export"].startswith("Export a detector to ONNX")


def test_in_a_wheel_they_are_in_the_package(tmp_path):
    package = tmp_path / "site-packages/misalign_det"
    (package / ".mim/tools/analysis").mkdir(parents=True)
    for name in ("one.py", "analysis/two.py", "analysis/helper.py"):
        text = 'if __name__ == "__main__": pass' if "helper" not in name else ""
        (package / ".mim/tools" / name).write_text(text)
    assert set(find_tools(package)) == {"one", "two"}


def call(*arguments, cwd):
    command = [sys.executable, "-m", "misalign_det", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_a_tool_gets_its_arguments_and_finds_its_helpers(tmp_path):
    (tmp_path / "shape_scenes.py").write_text("raise SystemExit('of the working folder')")
    sizes = ["--num-train", "1", "--num-val", "1", "--num-test", "0"]
    done = call("shapes", "--out-dir", "drawn", *sizes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn/annotations/instances_train.json").is_file()
    done = call("misalignment", "--help", cwd=tmp_path)
    assert done.stdout.startswith("usage: misalignment.py") and done.returncode == 0


def test_an_unknown_tool_names_near_ones():
    with pytest.raises(SystemExit) as end:
        main(["misaligment_report"])
    assert "no tool 'misaligment_report'" in str(end.value)
    assert "misalignment_report" in str(end.value).partition("Near matches: ")[2]
    with pytest.raises(SystemExit, match="The tools: export, predict, test, train"):
        main(["zzz"])
