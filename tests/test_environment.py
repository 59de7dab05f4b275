"""The environment check: what it finds, and the one message that it makes of it."""

import importlib
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.paths import ROOT

from misalign_det import environment
from misalign_det.environment import (
    FLOORS,
    ONEDL,
    OPENMMLAB,
    UnfitEnvironmentError,
    check_environment,
    describe,
    find_problems,
    installed_stack,
)


def importer(**changes):
    """An import function for a stack of exactly the floors, but for what is changed: a version, or
    an exception."""

    def import_module(name):
        found = changes.get(name.replace(".", "_"), FLOORS.get(name))
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(__version__=found)

    return import_module


def missing(name):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_running_environment_is_fit():
    check_environment()
    assert find_problems() == []


def test_floors_are_enough_and_there_is_no_ceiling():
    assert find_problems(importer()) == []
    newest = importer(torch="99.0", mmengine="99.0", mmcv="99.0", mmdet="99.0")
    assert find_problems(newest) == []
    assert find_problems(importer(torch="2.13.0+cpu")) == []


@pytest.mark.parametrize(
    ("module", "version"),
    [("torch", "2.0.1"), ("mmengine", "0.9.1"), ("mmcv", "2.0.1"), ("mmdet", "3.1.0")],
)
def test_too_old(module, version):
    [(subject, text)] = find_problems(importer(**{module: version}))
    assert subject == module
    assert text == f"{module} {version} is too old, {FLOORS[module]} or later is needed"


def test_missing_modules_are_all_named_at_once():
    absent = importer(**{name: missing(name) for name in FLOORS})
    subjects = [subject for subject, _ in find_problems(absent)]
    assert subjects == ["torch", "mmengine", "mmcv", "mmdet"]


def test_what_a_module_needs_is_named_too():
    problems = find_problems(importer(mmdet=missing("mmcv")))
    assert problems == [("mmcv", "mmdet needs mmcv, which is not installed")]
    [(subject, text)] = find_problems(importer(mmengine=missing("pkg_resources")))
    assert subject == "setuptools" and "pkg_resources" in text
    # mmdet 3.3.0's own ceiling
    refusal = AssertionError("MMCV==2.3.6 is used but incompatible.")
    [(subject, text)] = find_problems(importer(mmdet=refusal))
    assert subject == "mmdet" and "MMCV==2.3.6 is used but incompatible." in text


def test_python_3_12_without_setuptools(monkeypatch):
    """mmengine would say it in the middle of a run's start."""
    asked = []
    monkeypatch.setattr(environment.importlib.util, "find_spec", asked.append)
    for version, lacks in [((3, 11, 9), False), ((3, 12, 0), True), ((3, 13, 0), True)]:
        monkeypatch.setattr(environment.sys, "version_info", version)
        assert environment._lacks_distutils() == lacks
    assert asked == ["setuptools"] * 2
    monkeypatch.undo()
    monkeypatch.setattr(environment, "_lacks_distutils", lambda: True)
    [(subject, text)] = find_problems(importer())
    assert subject == "setuptools" and "mmengine needs distutils" in text
    assert '    pip install "setuptools<81"' in describe([(subject, text)], ONEDL).splitlines()
    assert len(find_problems(importer(mmengine=missing("mmengine")))) == 1


def test_missing_ops():
    problems = find_problems(importer(mmcv__ext=missing("mmcv._ext")))
    assert [subject for subject, _ in problems] == ["ops"]
    text = describe(problems, ONEDL)
    assert "mmcv has no usable compiled ops" in text
    assert "    MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary onedl-mmcv " in text
    # undefined symbols: compiled against another torch
    broken = importer(mmcv__ext=ImportError("undefined symbol: _ZN3c10"))
    assert "undefined symbol: _ZN3c10" in describe(find_problems(broken), ONEDL)


@pytest.mark.parametrize(
    ("stack", "commands"),
    [
        (
            ONEDL,
            [
                'pip install "torch>=2.1,<2.14"',
                'pip install "onedl-mmengine>=0.10.5"',
                "pip install onedl-mmcv",
            ],
        ),
        (
            OPENMMLAB,
            [
                'pip install "torch>=2.1,<2.14"',
                'pip install "mmengine>=0.10.5"',
                "pip install mmcv",
            ],
        ),
    ],
)
def test_the_commands_fit_the_stack(stack, commands):
    absent = importer(torch=missing("torch"), mmengine=missing("mmengine"), mmcv=missing("mmcv"))
    lines = describe(find_problems(absent), stack).splitlines()
    positions = [lines.index(f"    {command}") for command in commands]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "absent", [{"mmcv": missing("mmcv")}, {"mmcv__ext": missing("mmcv._ext")}, {"mmcv": "2.0.1"}]
)
@pytest.mark.parametrize(
    ("torch", "cxx20"),
    [("2.13.9", False), ("2.14", True), ("2.14.0", True), ("2.14.0.dev1+cpu", True), ("3.0", True)],
)
@pytest.mark.parametrize(
    ("stack", "name", "folder"), [(ONEDL, "onedl-mmcv", "onedl_mmcv"), (OPENMMLAB, "mmcv", "mmcv")]
)
def test_mmcv_is_compiled_as_cxx20_where_torch_needs_it(absent, torch, cxx20, stack, name, folder):
    problems = find_problems(importer(torch=torch, **absent))
    lines = describe(problems, stack).splitlines()
    assert not any('pip install "torch' in line for line in lines)
    said = f"  - torch {torch} needs C++20, and mmcv's setup.py compiles its ops as C++17"
    assert (said in lines) == cxx20
    as_it_is = f"    MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary {name} "
    assert any(line.startswith(as_it_is) for line in lines) != cxx20
    changed = [
        f"    pip download --no-build-isolation --no-binary :all: --no-deps {name}",
        f"    tar -xzf {folder}-*.tar.gz && sed -i s/std=c++17/std=c++20/g {folder}-*/setup.py",
        "    MMCV_WITH_OPS=1 pip install --no-build-isolation --force-reinstall --no-deps "
        f"./{folder}-*/",
    ]
    assert [line for line in lines if line in changed] == (changed if cxx20 else [])


def test_such_a_torch_is_fine_with_ops_that_are_there():
    assert find_problems(importer(torch="2.14.0")) == []
    assert find_problems(importer(torch="2.14.0", mmdet=missing("mmdet"))) == [
        ("mmdet", "mmdet is not installed")
    ]


@pytest.mark.parametrize(
    ("chosen", "imported", "expected"),
    [(None, False, "PASSIVE"), ("ACTIVE", False, "ACTIVE"), (None, True, None)],
)
def test_threads_sleep_unless_chosen_otherwise_or_too_late(monkeypatch, chosen, imported, expected):
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    if not imported:
        monkeypatch.delitem(sys.modules, "torch")
    environment.use_passive_wait_policy()
    assert os.environ.get("OMP_WAIT_POLICY") == expected


def test_threads_do_sleep_in_a_process_that_imports_the_package():
    """libgomp's own word: how often it looks before it sleeps."""
    environ = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environ.update(OMP_DISPLAY_ENV="VERBOSE", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", "import misalign_det"],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    counts = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stdout + done.stderr)
    if not counts:
        pytest.skip("this torch does not use libgomp")
    assert set(counts) == {"0"}


def test_which_stack(monkeypatch):
    there = set()
    monkeypatch.setattr(environment, "_is_installed", lambda name: name in there)
    assert installed_stack() == (ONEDL, [])
    there.add("mmdet")
    assert installed_stack() == (OPENMMLAB, [])
    there.add("onedl-mmcv")
    assert installed_stack() == (ONEDL, ["mmdet"])


def test_mixed_stacks_start_again_from_nothing(monkeypatch):
    there = {"mmdet", "onedl-mmcv", "onedl-mmengine"}
    monkeypatch.setattr(environment, "_is_installed", lambda name: name in there)
    text = describe(find_problems(importer(mmdet=AssertionError("MMCV is incompatible"))))
    assert "two stacks are mixed: mmdet, onedl-mmengine, onedl-mmcv" in text
    assert "    pip uninstall --yes mmdet onedl-mmengine onedl-mmcv\n" in text
    assert '    pip install "onedl-mmengine>=0.10.5" "onedl-mmdetection>=3.3.0"\n' in text


def test_importing_the_package_says_it(monkeypatch):
    """`import misalign_det` itself ends with the message, not with whatever failed first."""
    monkeypatch.setattr(environment, "find_problems", lambda: [("ops", "no ops here")])
    with pytest.raises(UnfitEnvironmentError, match="no ops here") as error:
        importlib.reload(importlib.import_module("misalign_det"))
    assert isinstance(error.value, ImportError)
    assert "To solve this" in str(error.value)


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "import misalign_det.apis.cli, mmdet.datasets, mmdet.evaluation"],
        *[
            ["-c", f"import sys; sys.path[:0] = {folders!r}; import {tool}"]
            for folders, tool in [
                ([str(ROOT / "tools")], "test as tool"),
                ([str(ROOT / "tools/analysis")], "cross_validate"),
                ([str(ROOT / "tools/analysis")], "tune_nms"),
                ([str(ROOT / "tools/study")], "cost"),
            ]
        ],
    ],
    ids=str,
)
def test_what_the_tools_import_prints_nothing(command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
