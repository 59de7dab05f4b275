"""A detection set of a few images, and a config that takes one training step on it."""

import os
import subprocess
import sys

import pytest
from helpers.paths import ROOT

TINY = """
_base_ = [
    '{configs}/_base_/models/triplehead_r50_fpn.py',
    '{configs}/_base_/datasets/shapes_detection.py',
    '{configs}/_base_/iter_runtime.py',
]
model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
    bbox_head=dict(num_classes=6, in_channels=32, feat_channels=32, stacked_convs=2,
                   norm_cfg=dict(type='GN', num_groups=8)),
    test_cfg=dict(score_thr=0.0))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1))
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """The root of a generated set of 4 training, 4 validation and 4 test images."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    converter = ROOT / "tools/dataset_converters/shapes.py"
    command = [sys.executable, converter, "--out-dir", folder]
    command += [f"--num-{split}=4" for split in ("train", "val", "test")]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def environ(shapes):
    """The environment of a tool's process: one thread, and the small set as the configs' data."""
    return {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "OMP_NUM_THREADS": "1",
        "MISALIGN_DET_SHAPES": str(shapes),
    }


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """A config file outside the repository, on bases inside it: one step of a small TripleHead."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(TINY.format(configs=ROOT / "configs"))
    return path


@pytest.fixture(scope="session")
def call(environ):
    """Run a command in a folder; its output, and its exit status, which is asserted on."""

    def call(command, cwd, status=0):
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=environ,
            text=True,
            timeout=1800,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    return call


@pytest.fixture(scope="session")
def trained(tiny_config, call, tmp_path_factory):
    """The work dir of one step of training with tools/train.py."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, ROOT / "tools/train.py", tiny_config, "--work-dir", folder / "run"]
    call(command, folder)
    return folder / "run"
