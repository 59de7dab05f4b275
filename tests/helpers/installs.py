"""Environments with the package installed from a copy of the repository, and nothing downloaded."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from helpers.paths import ROOT


def pip(*arguments):
    """Call the running environment's pip; what it says is shown where it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def copy_repository(folder):
    """Copy what the package is built from."""
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("misalign_det", "configs", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE", "model-index.yml"):
        shutil.copy(ROOT / name, folder)
    return folder


def build_wheel(source, folder):
    """Build the package's wheel into a folder, from a folder or a source distribution."""
    pip("wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = Path(folder).glob("*.whl")
    return wheel


def make_environment(folder, *packages):
    """An environment with these packages, and behind them all that the running one has.

    Editable installs of the running environment are not among it: Python reads no .pth file of a
    folder that a .pth file names.

    Returns:
        tuple[Path, Path]: its Python and its site-packages.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = Path(folder) / "bin/python"
    (site,) = Path(folder).glob("lib/python*/site-packages")
    # Named so that it is read last: the environment's own packages come first. The second line is
    # in setuptools' own .pth file: from Python 3.12 on mmengine has distutils from there.
    lines = [sysconfig.get_path("purelib"), "import _distutils_hack; _distutils_hack.add_shim()"]
    (site / "zz_behind.pth").write_text("\n".join(lines) + "\n")
    options = ["--quiet", "--no-build-isolation", "--no-deps"]
    pip("--python", python, "install", *options, *packages)
    return python, site
