"""tools/setup_environment.sh with stand-ins for pip and torch: what it says before it compiles."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers.paths import ROOT
from packaging.version import Version

from misalign_det.environment import FIRST_TORCH_WITH_CXX20

SCRIPT = ROOT / "tools/setup_environment.sh"
TORCH = """
__version__ = {version!r}
class cuda:
    is_available = staticmethod(lambda: False)
"""
# `download` gives an archive like mmcv's, and `wheel` logs the setup.py of a folder that it gets.
PIP = """
import io, os, sys, tarfile
log = open(os.environ["PIP_LOG"], "a")
print(*sys.argv[1:], file=log)
if "download" in sys.argv:
    if os.environ.get("OFFLINE"):
        sys.exit("no index")
    folder = sys.argv[sys.argv.index("--dest") + 1]
    with tarfile.open(f"{folder}/onedl_mmcv-2.3.6.tar.gz", "w:gz") as archive:
        text = b"cxx = ['-Wall', '-std=c++17']; nvcc = ['-std=c++17']"
        member = tarfile.TarInfo("onedl_mmcv-2.3.6/setup.py")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
if "wheel" in sys.argv and os.path.isdir(sys.argv[-1]):
    print(open(f"{sys.argv[-1]}/setup.py").read(), file=log)
"""


@pytest.fixture
def setup(tmp_path):
    """Run the script in an environment with a torch of some version; status, text, pip's calls."""
    log = tmp_path / "pip.log"

    def setup(version, own=False, **more):
        repository = tmp_path / "clone"
        for name in ("tools", "misalign_det"):
            shutil.copytree(ROOT / name, repository / name)
        shutil.copy(ROOT / "pyproject.toml", repository)
        stubs = tmp_path / "stubs"
        (stubs / "pip").mkdir(parents=True)
        torch = TORCH.format(version=version) if version else "raise ImportError"
        (stubs / "torch.py").write_text(torch)
        known = Version(version).public if version else "0"
        (stubs / f"torch-{known}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: torch\nVersion: {known}\n"
        (stubs / f"torch-{known}.dist-info/METADATA").write_text(metadata)
        (stubs / "pip/__init__.py").write_text("")
        (stubs / "pip/__main__.py").write_text(PIP)
        environment = repository / ".venv" if own else tmp_path / "env"
        (environment / "bin").mkdir(parents=True)
        python = environment / "bin/python"
        python.write_text(f'#!/bin/sh\nexport PYTHONPATH={stubs}\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        variables = {
            key: value
            for key, value in os.environ.items()
            if key not in ("VIRTUAL_ENV", "CONDA_PREFIX", "MISALIGN_DET_STACK")
        }
        if not own:
            variables["VIRTUAL_ENV"] = str(environment)
        done = subprocess.run(
            ["bash", repository / "tools/setup_environment.sh"],
            capture_output=True,
            text=True,
            env={
                **variables,
                "PIP_LOG": str(log),
                "MISALIGN_DET_CACHE": str(tmp_path / "cache"),
                **more,
            },
        )
        calls = log.read_text() if log.exists() else ""
        return done.returncode, done.stdout + done.stderr, calls

    return setup


@pytest.mark.parametrize("own", [False, True], ids=["active", "own"])
@pytest.mark.parametrize("version", ["2.14.0+cpu", "2.20.0", "3.0.0"])
def test_mmcv_is_compiled_as_cxx20_where_torch_needs_it(setup, version, own):
    _, text, calls = setup(version, own)  # the stand-in for pip makes no wheel, so it ends there
    assert "Compiling onedl-mmcv==2.3.6" in text
    download = next(line for line in calls.splitlines() if " download " in line)
    assert "--no-build-isolation --no-binary :all:" in download and "onedl-mmcv==2.3.6" in download
    assert "cxx = ['-Wall', '-std=c++20']; nvcc = ['-std=c++20']" in calls


def test_a_source_that_cannot_be_had(setup, tmp_path):
    status, text, calls = setup("2.14.0", OFFLINE="1")
    assert status == 1 and "error: the source of onedl-mmcv==2.3.6, to be compiled as C++20" in text
    assert "wheel -v" not in calls and not list(tmp_path.glob("cache/**/.building*"))


@pytest.mark.parametrize("version", ["2.13.0+cpu", "2.9.1"])
def test_other_torches_take_mmcv_as_it_is(setup, version):
    _, text, calls = setup(version)
    assert "Compiling onedl-mmcv==2.3.6" in text and " download " not in calls
    (build,) = (line for line in calls.splitlines() if "wheel -v" in line)
    assert build.endswith(" onedl-mmcv==2.3.6")


@pytest.mark.parametrize(
    ("wanted", "numpy"),
    [("2.1.2", 1), ("2.2.0", 1), ("2.3.0", 2), ("2.13.0", 2), ("2.20.0", 2), ("", 2)],
)
def test_the_torch_asked_for_is_installed_with_its_numpy(setup, wanted, numpy):
    _, _, calls = setup(None, MISALIGN_DET_TORCH=wanted)
    torch = wanted or re.search(r"^TORCH=(\S+)$", SCRIPT.read_text(), re.MULTILINE)[1]
    assert f" torch=={torch} numpy " in calls and f"constraints-numpy{numpy}.txt" in calls


@pytest.mark.parametrize(("version", "numpy"), [("2.1.2+cu121", 1), ("2.2.2", 1), ("2.4.1+cpu", 2)])
def test_an_installed_torch_is_kept_with_its_numpy(setup, version, numpy):
    _, _, calls = setup(version, MISALIGN_DET_TORCH="2.13.0")
    assert "torch==" not in calls and f"constraints-numpy{numpy}.txt" in calls.splitlines()[0]


def test_pip_gets_the_version_of_torch_that_it_knows(setup, tmp_path):
    """Of a build with CUDA from PyPI: 2.13.0, and not torch.__version__."""
    setup("2.13.0+cu130")
    assert (tmp_path / "env/.misalign_det-torch.txt").read_text() == "torch==2.13.0\n"


@pytest.fixture
def free_space(tmp_path):
    """A PATH whose df says that some GB are free."""

    def free_space(gigabytes):
        folder = tmp_path / "df"
        folder.mkdir()
        df = folder / "df"
        df.write_text(f"#!/bin/sh\necho head\necho disk 1 1 {gigabytes * 10**6} 50% /\n")
        df.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return free_space


def test_a_missing_compiler_is_said_before_the_downloads(setup, free_space, tmp_path):
    status, text, calls = setup(None, CXX="no-such-c++ -O2", PATH=free_space(50))
    assert status == 1 and "no C++ compiler (no-such-c++ -O2)" in text and "apt install g++" in text
    assert calls == ""


def test_with_a_compiled_mmcv_no_compiler_is_needed(setup, free_space, tmp_path):
    wheel = tmp_path / "cache/wheels/torch1/onedl-mmcv==2.3.6/mmcv.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    _, text, calls = setup(None, CXX="no-such-c++", PATH=free_space(50))
    assert "no C++ compiler" not in text and "torch==" in calls


@pytest.mark.parametrize(
    ("free", "stops", "said"),
    [(3, True, "3 GB are free where"), (6, False, "note: 6 GB are free"), (50, False, None)],
)
def test_a_full_disk_is_said_before_the_downloads(setup, free_space, free, stops, said):
    _, text, calls = setup(None, PATH=free_space(free))
    assert (said or "Installing torch") in text
    assert ("GB are free" in text) == (said is not None)
    assert (calls == "") == stops


def test_the_default_torch_takes_mmcv_as_it_is():
    torch = re.search(r"^TORCH=(\S+)$", SCRIPT.read_text(), re.MULTILINE)[1]
    assert Version(torch) < Version(FIRST_TORCH_WITH_CXX20)


def test_no_python_that_fits_names_ways_to_one(tmp_path):
    """With a PATH that holds no Python."""
    for name in ("bash", "dirname", "cat", "printf"):
        (tmp_path / name).symlink_to(shutil.which(name))
    repository = tmp_path / "clone/tools"
    shutil.copytree(ROOT / "tools", repository)
    done = subprocess.run(
        [tmp_path / "bash", repository / "setup_environment.sh"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no Python 3.10 to 3.12 with venv and headers was found" in done.stderr
    assert "conda create --name misalign_det python=3.12" in done.stderr


@pytest.mark.parametrize(
    ("system", "way"),
    [
        ("ID=debian\nVERSION_ID=12", "apt install python3-venv python3-dev, or"),
        ('ID=ubuntu\nVERSION_ID="24.04"', "apt install python3-venv python3-dev, or"),
        ("ID=debian\nVERSION_ID=13", ""),  # its python3 is 3.13
        ("ID=fedora\nVERSION_ID=42", "dnf install python3.12-devel, or"),
        (None, ""),
    ],
)
def test_the_systems_own_python_is_named_where_it_fits(tmp_path, system, way):
    release = tmp_path / "os-release"
    if system:
        release.write_text(system)
    function = re.search(r"^way_to_a_python\(\) \{.*?^\}", SCRIPT.read_text(), re.S | re.M)[0]
    script = function.replace("/etc/os-release", str(release)) + "\nset -euo pipefail\n"
    done = subprocess.run(
        ["bash", "-c", script + "way_to_a_python"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == way and done.stderr == ""


def test_the_fingerprint_passes_over_compiled_files_and_pages(tmp_path):
    """Python leaves __pycache__ beside the build hook, unless a variable forbids it."""
    shutil.copytree(ROOT / "tools/environment", tmp_path / "tools/environment", dirs_exist_ok=True)
    (tmp_path / "tools/environment/__pycache__").mkdir(exist_ok=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    function = re.search(r"^fingerprint\(\) \{.*?^\}", SCRIPT.read_text(), re.S | re.M)[0]
    script = tmp_path / "fingerprint.sh"
    script.write_text(
        f"set -euo pipefail\nREPOSITORY={tmp_path}\nSTACK=onedl\n"
        f'python() {{ {sys.executable} "$@"; }}\n{function}\nfingerprint\n'
    )

    def run():
        return subprocess.run(["bash", script], capture_output=True, text=True, check=True).stdout

    first = run()
    assert first.split()[0].isdigit() and run() == first
    (tmp_path / "tools/environment/README.md").write_text("another sentence")
    assert run() == first
    (tmp_path / "tools/environment/constraints.txt").write_text("torch==0")
    assert run() != first
