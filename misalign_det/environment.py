"""Check torch, mmcv, mmengine and mmdet: oldest versions, and what to install.

mmcv, mmengine and mmdet come from one of two sets of distributions that install the same modules:
the maintained `onedl-*` forks or the original ones. So the check imports the modules, whatever
distribution they come from.
"""

import contextlib
import importlib
import importlib.util
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from types import ModuleType

from packaging.version import Version

# The oldest releases that the tests have run on; a newer one is never refused.
FLOORS = {"torch": "2.1", "mmengine": "0.10.5", "mmcv": "2.1.0", "mmdet": "3.3.0"}

# The oldest torch whose headers need C++20; the setup.py of mmcv, of either stack, compiles its ops
# as C++17. tools/setup_environment.sh reads this line.
FIRST_TORCH_WITH_CXX20 = "2.14"

ONEDL = {"mmengine": "onedl-mmengine", "mmcv": "onedl-mmcv", "mmdet": "onedl-mmdetection"}
OPENMMLAB = {"mmengine": "mmengine", "mmcv": "mmcv", "mmdet": "mmdet"}

_BUILD_TOOLS = 'pip install "setuptools<81" wheel ninja packaging'
_BUILD_MMCV = (
    "MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary {0} --no-cache-dir "
    "--force-reinstall --no-deps {0}"
)
_BUILD_MMCV_AS_CXX20 = (
    "pip download --no-build-isolation --no-binary :all: --no-deps {0}",
    "tar -xzf {1}-*.tar.gz && sed -i s/std=c++17/std=c++20/g {1}-*/setup.py",
    "MMCV_WITH_OPS=1 pip install --no-build-isolation --force-reinstall --no-deps ./{1}-*/",
)


def use_passive_wait_policy() -> None:
    """Set OMP_WAIT_POLICY=PASSIVE, unless the variable is set: idle OpenMP threads sleep.

    By default they spin. On a machine with other load, each operation then waits for the thread
    that was not scheduled, and a training step takes several times as long. OpenMP reads the
    variable once, when torch is imported. If torch has been imported before, nothing is changed, so
    that a program that uses this package as a plugin keeps its own setting.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class UnfitEnvironmentError(ImportError):
    """Packages are missing or too old; the message lists them and the commands to install them."""


def check_environment() -> None:
    """Import torch, mmengine, mmcv with its compiled ops, and mmdet, and compare their versions.

    Raises:
        UnfitEnvironmentError: a package is missing, too old or cannot be imported. The message
            lists all problems and ends with the commands that solve them.
    """
    problems = find_problems()
    if problems:
        raise UnfitEnvironmentError(describe(problems))


def import_without_notices() -> None:
    """Import the parts of mmdet that print, while they are imported, what optional packages lack.

    These lines would head the output of every tool. An error is raised as usual.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="faster_coco_eval is not installed")
        for module in ("mmdet.datasets", "mmdet.evaluation"):
            importlib.import_module(module)


def find_problems(
    import_module: Callable[[str], ModuleType] = importlib.import_module,
) -> list[tuple[str, str]]:
    """Find all problems, in the order in which they have to be solved.

    Args:
        import_module: imports a module by its name; replaced in tests.

    Returns:
        Pairs of subject and description. The subject is a key of `FLOORS`, ``'ops'`` for mmcv's
        compiled operators, ``'cxx20'`` for the C++ standard of these, or ``'setuptools'``.
    """
    problems: list[tuple[str, str]] = []
    versions: dict[str, str] = {}
    for module, floor in FLOORS.items():
        try:
            version = versions[module] = import_module(module).__version__
        except Exception as error:  # mmdet asserts, a broken binary raises OSError, ...
            problems.append(_explain(module, error))
            continue
        if Version(version) < Version(floor):
            problems.append((module, f"{module} {version} is too old, {floor} or later is needed"))
    if "mmengine" in versions and _lacks_distutils():
        text = "mmengine needs distutils, which Python 3.12 and later have from setuptools only"
        problems.append(("setuptools", text))
    if not any(module in ("torch", "mmcv") for module, _ in problems):
        try:
            import_module("mmcv._ext")
        except Exception as error:
            text = f"mmcv has no usable compiled ops (mmcv._ext: {_brief(error)})"
            problems.append(("ops", text))
    torch = versions.get("torch", "0")
    if any(module in ("mmcv", "ops") for module, _ in problems) and (
        Version(torch).release >= Version(FIRST_TORCH_WITH_CXX20).release
    ):
        text = f"torch {torch} needs C++20, and mmcv's setup.py compiles its ops as C++17"
        problems.append(("cxx20", text))
    return problems


def describe(problems: Sequence[tuple[str, str]], stack: dict[str, str] | None = None) -> str:
    """The message for the problems found.

    Args:
        problems: from `find_problems`.
        stack: distribution of each module; default: the stack of which anything is installed, else
            onedl's.

    Returns:
        One line per problem, then one line per command.
    """
    what = {subject for subject, _ in problems}
    commands = []
    if stack is None:
        stack, foreign = installed_stack()
        if foreign:  # their files overwrite one another: uninstall both
            both = foreign + [name for name in stack.values() if _is_installed(name)]
            problems = [*problems, ("mixed", f"two stacks are mixed: {', '.join(both)}")]
            commands.append(f"pip uninstall --yes {' '.join(both)}")
            what |= set(stack)
    if "setuptools" in what:
        commands.append('pip install "setuptools<81"')
    if "torch" in what:
        # mmcv compiles with pip alone against an older one
        bound = FIRST_TORCH_WITH_CXX20
        commands.append(f'pip install "torch>={FLOORS["torch"]},<{bound}"')
    wanted = [f'"{stack[m]}>={FLOORS[m]}"' for m in ("mmengine", "mmdet") if m in what]
    if wanted:
        commands.append(f"pip install {' '.join(wanted)}")
    if what & {"mmcv", "ops"}:
        # The ops are compiled against the installed torch: no cached wheel, none from elsewhere.
        build = _BUILD_MMCV_AS_CXX20 if "cxx20" in what else (_BUILD_MMCV,)
        names = stack["mmcv"], stack["mmcv"].replace("-", "_")
        commands += [_BUILD_TOOLS, *(command.format(*names) for command in build)]
        if "mmcv" in what:
            commands.append(f"pip install {stack['mmcv']}")  # its dependencies
    lines = ["misalign_det cannot be used in this environment:"]
    lines += [f"  - {problem}" for _, problem in problems]
    lines.append("To solve this (in a clone, `bash tools/setup_environment.sh` does all of it):")
    lines += [f"    {command}" for command in commands]
    return "\n".join(lines)


def installed_stack() -> tuple[dict[str, str], list[str]]:
    """The stack in use: `ONEDL`, unless only distributions of `OPENMMLAB` are installed.

    Returns:
        Distribution of each module, and the installed distributions of the other stack.
    """
    onedl, openmmlab = (list(filter(_is_installed, s.values())) for s in (ONEDL, OPENMMLAB))
    return (OPENMMLAB, []) if openmmlab and not onedl else (ONEDL, openmmlab)


def _lacks_distutils() -> bool:
    """Whether a run would end when mmengine describes its environment; nothing is imported."""
    return sys.version_info >= (3, 12) and importlib.util.find_spec("setuptools") is None


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _explain(module: str, error: Exception) -> tuple[str, str]:
    """Subject and description, as in `find_problems`, for a module that cannot be imported."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing == module:
        return module, f"{module} is not installed"
    if missing == "pkg_resources":
        return "setuptools", f"{module} needs pkg_resources, which this setuptools no longer has"
    if missing in FLOORS:
        return missing, f"{module} needs {missing}, which is not installed"
    return module, f"{module} cannot be imported ({_brief(error)})"


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
