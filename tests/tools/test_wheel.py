"""The package without its repository: a wheel from the source distribution, in an environment of
its own, and what a user then calls, from a folder that holds nothing else.

mim has `train` and `test`; `python -m misalign_det` has these and all other tools.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.installs import build_wheel, copy_repository, make_environment
from helpers.paths import ROOT

pytestmark = pytest.mark.slow

CONFIG = "misalign_effnet-lite0_fpn_quickstart_shapes"
# One step, on four images. After it every score is low.
OPTIONS = ["--cfg-options", "model.test_cfg.score_thr=0"]
OPTIONS += [
    f"{split}_dataloader.{option}"
    for split in ("train", "val", "test")
    for option in ("num_workers=0", "persistent_workers=False")
]
TRAIN_OPTIONS = [*OPTIONS, "train_cfg.max_epochs=1", "train_cfg.val_interval=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The source distribution."""
    folder = copy_repository(tmp_path_factory.mktemp("copy") / "misalign_det")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("dist/*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def installed(source, tmp_path_factory):
    """Python and site-packages of an environment with the wheel of the source distribution."""
    wheel = build_wheel(source, tmp_path_factory.mktemp("wheel"))
    return make_environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """Run a Python module in the user's folder, which is empty at first; its output."""
    folder = tmp_path_factory.mktemp("user")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments):
        done = subprocess.run(
            [str(installed[0]), *map(str, arguments)],
            cwd=folder,
            env={**environ, "OMP_NUM_THREADS": "1"},
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}"
        # The packages behind may be in the repository's own .venv.
        assert str(ROOT) not in done.stdout.replace(sysconfig.get_path("purelib"), "")
        return done.stdout

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def data(run):
    """The set that the quickstart's config reads, drawn by the installed tool."""
    sizes = [word for name in ("train", "val", "test") for word in (f"--num-{name}", "4")]
    run("-m", "misalign_det", "shapes", "--out-dir", "data/quickstart", *sizes)
    return run.folder / "data/quickstart"


@pytest.fixture(scope="module")
def checkpoint(run, data):
    """Of one step of training with `python -m`."""
    text = run("-m", "misalign_det", "train", CONFIG, *TRAIN_OPTIONS)
    assert "bbox_mAP" in text
    return run.folder / f"work_dirs/{CONFIG}/epoch_1.pth"


def test_the_import_is_of_the_wheel(run, installed):
    text = run("-c", "import misalign_det; print(misalign_det.__file__)")
    assert Path(text.strip()) == installed[1] / "misalign_det/__init__.py"


def test_train_and_test_by_mim(run, data):
    work = ["--work-dir", "by_mim"]
    run("-m", "mim", "train", "misalign_det", f"{CONFIG}.py", *work, *TRAIN_OPTIONS)
    checkpoint = ["--checkpoint", "by_mim/epoch_1.pth", "--work-dir", "tested"]
    text = run("-m", "mim", "test", "misalign_det", f"{CONFIG}.py", *checkpoint, *OPTIONS)
    assert "bbox_mAP" in text


def test_test_by_name(run, checkpoint):
    options = ["--out", "detections.pkl", *OPTIONS]
    text = run("-m", "misalign_det", "test", CONFIG, checkpoint, *options)
    assert "bbox_mAP" in text and (run.folder / "detections.pkl").is_file()


def test_predict_by_name(run, data, checkpoint):
    text = run("-m", "misalign_det", "predict", CONFIG, checkpoint, data / "val", *OPTIONS)
    assert "on 4 images" in text
    assert isinstance(json.loads((run.folder / "predictions/predictions.json").read_text()), list)
    assert len(list(run.folder.glob("predictions/pictures/*.jpg"))) == 4


def test_report_by_name(run, checkpoint):
    options = ["--out", "report.html", "--resamples", "0", *OPTIONS]
    run("-m", "misalign_det", "misalignment_report", CONFIG, checkpoint, *options)
    assert "Plotly" in (run.folder / "report.html").read_text()


def test_export_by_name(run, data, checkpoint):
    options = ["--out", "model.onnx", "--nms", "--images", data / "val", *OPTIONS]
    run("-m", "misalign_det", "export", CONFIG, checkpoint, *options)
    assert (run.folder / "model.onnx").stat().st_size > 10**6
