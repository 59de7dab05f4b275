"""`mim train|test misalign_det CONFIG` in every kind of install, and over two processes.

Two installs (editable, wheel) times two mims (onedl-mim, openmim) times two ways to name a config
(path, bare name). The package is built from a copy of the repository, to which a config of one
training step is added. Each install gets a small environment that sees the packages of the running
one behind its own.
"""

import re
import sys
from pathlib import Path

import pytest
from helpers.installs import build_wheel, copy_repository, make_environment
from helpers.paths import ROOT

pytestmark = pytest.mark.slow

MIMS = {"onedl": "onedl-mim==0.5.1", "openmmlab": "openmim==0.3.9"}


@pytest.fixture(scope="session")
def copy(tmp_path_factory, tiny_config):
    """A copy of the repository with one more config, tiny_one_step.py."""
    folder = copy_repository(tmp_path_factory.mktemp("copy") / "misalign_det")
    text = tiny_config.read_text().replace(str(ROOT / "configs"), ".")
    (folder / "configs/tiny_one_step.py").write_text(text)
    return folder


@pytest.fixture(scope="session")
def wheel(copy, tmp_path_factory):
    """The package's wheel."""
    return build_wheel(copy, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(
    scope="module",
    params=["editable-onedl", "editable-openmmlab", "wheel-onedl", "wheel-openmmlab"],
)
def installed(request, copy, tmp_path_factory):
    """(kind of install, Python of an environment, folder where mim must find tools and configs)."""
    install, mim = request.param.split("-")
    if install == "editable":
        # Inside the repository, as quickstart.sh puts it: onedl-mim searches all of that.
        python, _ = make_environment(copy / f".venv-{mim}", MIMS[mim], "-e", copy)
        return install, python, copy
    wheel = request.getfixturevalue("wheel")
    folder = tmp_path_factory.mktemp("environment")
    python, site = make_environment(folder, MIMS[mim], wheel)
    tree = "_misalign_det_mim" if mim == "onedl" else "misalign_det"
    return install, python, site / tree / ".mim"


@pytest.mark.parametrize("named", ["path", "bare"])
def test_mim_train_and_test(installed, named, copy, call, tmp_path):
    install, python, found = installed
    config = found / "configs/tiny_one_step.py"
    typed = config if named == "path" else config.name
    # The default work dir lies in the folder where mim runs; in a clone that is the repository.
    cwd = copy if install == "editable" else tmp_path
    text = call([python, "-m", "mim", "train", "misalign_det", typed], cwd)
    command = re.search(r"Training command is \S+ (\S+) (\S+) ", text)
    assert Path(command[1]).resolve() == found / "tools/train.py"
    assert Path(command[2]).resolve() == config
    checkpoint = cwd / "work_dirs/tiny_one_step/iter_1.pth"
    assert checkpoint.is_file()
    if named == "bare":
        text = call(
            [
                python,
                "-m",
                "mim",
                "test",
                "misalign_det",
                typed,
                "--checkpoint",
                checkpoint,
                "--work-dir",
                tmp_path / "test",
            ],
            cwd,
        )
        assert "bbox_mAP_50" in text


def test_mim_lists_the_models(installed, call, tmp_path):
    _, python, _ = installed
    text = call([python, "-m", "mim", "search", "misalign_det"], tmp_path)
    assert "jla_triplehead_r50_fpn_1x_coco" in text


def test_two_processes_without_gpu(tiny_config, call, tmp_path):
    """Over gloo; the validation images are shared out."""
    text = call(
        [
            sys.executable,
            "-m",
            "mim",
            "train",
            "misalign_det",
            tiny_config,
            "--launcher",
            "pytorch",
            "--gpus",
            "2",
            "--work-dir",
            tmp_path / "work",
        ],
        tmp_path,
    )
    (log,) = (tmp_path / "work").glob("*/*.log")
    assert "Distributed training: True" in log.read_text()
    assert "GPU number: 2" in log.read_text()
    assert "Iter(val) [1/1]" in text  # 4 images, 2 at a time, by 2 processes
    assert (tmp_path / "work/iter_1.pth").is_file()
