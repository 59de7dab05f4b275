"""How the package is laid out: what imports what, and that every option has a use."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import mmdet.registry
import pytest
from mmengine.registry import Registry

import misalign_det

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "misalign_det"
# A package imports from those before it and from the modules beside misalign_det/__init__.py.
PACKAGES = ("utils", "models", "evaluation", "datasets", "engine", "apis", "analysis")
OUTSIDE = {"misalign_det", "tools", "tests", "helpers", "configs"}
IN_MODELS = (
    "utils",
    "backbones",
    "layers",
    "losses",
    "post_processing",
    "task_modules",
    "dense_heads",
)
WORDS = re.compile(
    r"\bpapers? [ABC]\b|\bthe seed(?:'s)? (?:paper|wording|text|formula)", re.IGNORECASE
)
NEWLY_LOADED = """
import sys
import mmcv.ops, mmdet.models
before = set(sys.modules)
import misalign_det
new = {name for name in set(sys.modules) - before if name.split(".")[0] != "misalign_det"}
print("newly loaded:", *sorted(new))
"""


def imported_packages(folder: Path):
    """Yield ``(file, own package, imported package)`` for each import between packages."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = parts[: len(parts) - node.level + 1]
            target = (*base, *(node.module.split(".") if node.module else ()))
            names = [target[1]] if len(target) > 1 else [alias.name for alias in node.names]
            for name in names:
                if len(target) and target[0] == folder.name and (folder / name).is_dir():
                    own = parts[1] if len(parts) > 1 else None
                    if own not in (None, name):
                        yield path, own, name


@pytest.mark.parametrize(
    ("folder", "order"),
    [(PACKAGE, PACKAGES), (PACKAGE / "models", IN_MODELS)],
    ids=["all", "models"],
)
def test_imports_point_one_way(folder, order):
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert folders == set(order)
    found = list(imported_packages(folder))
    assert len({(own, name) for _, own, name in found}) >= len(order) - 2  # two may need none
    back = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, own, name in found
        if order.index(name) > order.index(own)
    ]
    assert not back


def test_imports_within_the_package_are_relative():
    """Or the test above would not see them."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert OUTSIDE.isdisjoint(name.split(".")[0] for name in names), path


def test_modules_beside_the_packages_import_none_of_them():
    """errors.py and registry.py are imported from everywhere: an import of theirs is a circle."""
    paths = [path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert {"errors.py", "registry.py"} <= {path.name for path in paths}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                assert not {name.split(".")[0] for name in names} & set(PACKAGES), path


def test_only_an_old_name_imports_from_the_package_by_a_string():
    """The tests above do not see such an import."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.search(
                r"\b(import_module|__import__)$", ast.unparse(node.func)
            ):
                strings = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if any(re.match(r"\.|misalign_det\b", str(value)) for value in strings):
                    found.add(str(path.relative_to(PACKAGE)))
    assert found == {"engine/detector.py"}


def test_no_test_imports_from_another():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level or "helpers" in path.parts, path
                names = [node.module or ""]
            assert not any(re.search(r"(^|\.)(test_|conftest)", name) for name in names), path


@pytest.mark.parametrize("folder", ["misalign_det", "tools"])
def test_files_and_folders_have_a_readable_size(folder):
    files = list((ROOT / folder).rglob("*.py"))
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > 340} == {}
    folders = {path.parent for path in files}
    sizes = {str(f.relative_to(ROOT)): len(list(f.glob("*.py"))) for f in folders}
    assert {name: count for name, count in sizes.items() if count > 16} == {}


def test_tests_mirror_the_package():
    for folder in (ROOT / "tests").rglob("*"):
        if folder.is_dir() and any(folder.glob("test_*.py")) and folder != ROOT / "tests":
            name = folder.relative_to(ROOT / "tests")
            assert (PACKAGE / name).is_dir() or (ROOT / name).is_dir(), name


def registered_classes():
    for registry in vars(mmdet.registry).values():
        if isinstance(registry, Registry):
            for cls in registry.module_dict.values():
                if inspect.isclass(cls) and cls.__module__.startswith("misalign_det"):
                    yield cls


def names_given(tree):
    """Keywords of calls, and keys of dicts and of dotted options."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value) if len(node.value) < 80 else ()


def test_every_option_has_a_use():
    """In a config, a README, a tool or a test."""
    used = set(re.findall(r"(\w+)=", (ROOT / "README.md").read_text()))
    for path in [p for folder in ("configs", "tests", "tools") for p in (ROOT / folder).rglob("*")]:
        if path.suffix == ".py" and path != Path(__file__):
            used |= set(names_given(ast.parse(path.read_text())))
        elif path.suffix in (".md", ".sh"):
            used |= set(re.findall(r"(\w+)=", path.read_text()))
    classes = set(registered_classes())
    assert len(classes) > 20
    unused = []
    for cls in classes:
        for parent in cls.__mro__:
            if parent.__module__.startswith("misalign_det") and "__init__" in vars(parent):
                names = inspect.signature(parent.__init__).parameters.values()
                unused += [
                    f"{parent.__name__}.{p.name}"
                    for p in names
                    if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
                    and p.name != "self"
                    and p.name not in used
                ]
    assert sorted(set(unused)) == []


def test_papers_are_named_by_their_titles():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".sh", ".yml", ".j2", ".toml", ".cff") and path.is_file():
            if path != Path(__file__):
                found += [f"{name}: {m[0]}" for m in WORDS.finditer(path.read_text())]
    assert found == []


def test_version_is_the_only_name_beside_the_packages():
    assert set(misalign_det.__all__) <= {"__version__", *PACKAGES}


def test_import_is_light():
    """A config that names misalign_det loads nothing but what mmdet's models have loaded."""
    done = subprocess.run(
        [sys.executable, "-c", NEWLY_LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == ["newly", "loaded:"]
