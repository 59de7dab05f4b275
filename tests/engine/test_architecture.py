"""Checkpoints of another architecture are named; keys that mmdet renames are none."""

from collections import OrderedDict

import pytest
import torch
from helpers.checkpoints import save, small
from torch import nn

from misalign_det.engine.checkpoint import check_checkpoint, load_checkpoint, tensors_only
from misalign_det.errors import CheckpointError

CFG = """
model = dict(
    type='FCOS',
    backbone=dict(type='ResNet', depth=50),
    bbox_head=dict(type='FCOSHead', num_classes=80))
"""


class Renamed(nn.Module):
    """Its weight was once called `old`, as some of mmdet's heads' were."""

    _version = 1

    def __init__(self, size=2):
        super().__init__()
        self.new = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version") is None and f"{prefix}old" in state_dict:
            state_dict[f"{prefix}new"] = state_dict.pop(f"{prefix}old")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def test_names_that_mmdet_itself_renames_are_no_other_architecture(tmp_path):
    path = str(tmp_path / "x.pth")
    torch.save({"state_dict": {"old": torch.full((2,), 3.0), "bias": torch.zeros(2)}}, path)
    model = Renamed()
    check_checkpoint(model, path)
    assert model.new.tolist() == [1, 1]  # compared, not loaded
    load_checkpoint(model, path)
    assert model.new.tolist() == [3, 3]
    with pytest.raises(CheckpointError, match="0 of the model's 2 tensors.*Missing: new"):
        check_checkpoint(Renamed(3), path)
    state = OrderedDict(old=torch.ones(2), bias=torch.zeros(2))
    state._metadata = {"": {"version": 1}}  # written by the new version, which has no `old`
    torch.save({"state_dict": state}, path)
    with pytest.raises(CheckpointError, match="1 of the model's 2 tensors"):
        check_checkpoint(model, path)


class Detector(nn.Module):
    """Two of its five tensors are in the checkpoint of `small()`, one of them of another shape."""

    def __init__(self):
        super().__init__()
        self.add_module("0", nn.Linear(2, 3))
        self.add_module("1", nn.Linear(4, 1, bias=False))
        self.bbox_head = nn.Linear(1, 1)


def test_another_architecture_is_named_with_the_count(tmp_path):
    path = save(tmp_path / "x.pth", cfg=CFG)
    with pytest.raises(CheckpointError) as error, tensors_only():
        check_checkpoint(Detector(), path)
    assert str(error.value) == (
        f"{path}: 2 of the model's 5 tensors are in this checkpoint (4 tensors). Missing: "
        "bbox_head.weight, bbox_head.bias. Of another shape: 1.weight. Not in the model: 1.bias.\n"
        "The checkpoint holds FCOS with FCOSHead on ResNet (depth 50); the config's model is "
        "Detector with Linear. Give the checkpoint of this config, or the config of this "
        "checkpoint."
    )


def test_surplus_tensors_alone_are_another_architecture_too(tmp_path):
    longer = nn.Sequential(*small(), nn.Linear(1, 1))
    path = save(tmp_path / "x.pth", longer)
    with pytest.raises(CheckpointError, match="Not in the model: 2.weight, 2.bias"), tensors_only():
        check_checkpoint(small(), path)


def test_fine_tuning_takes_half_and_not_less(tmp_path):
    other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 7))  # another number of classes
    path = save(tmp_path / "x.pth")
    with tensors_only():
        check_checkpoint(other, path, strict=False)
    fewer = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))  # only 1.bias agrees
    with pytest.raises(CheckpointError, match="1 of the model's 4 tensors"), tensors_only():
        check_checkpoint(fewer, path, strict=False)


def test_prefix_of_data_parallel_models(tmp_path):
    state = {f"module.{name}": value for name, value in small().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    torch.save(small().state_dict(), tmp_path / "bare.pth")  # weights alone are fine, too
    with tensors_only():
        check_checkpoint(small(), str(tmp_path / "x.pth"))
        check_checkpoint(small(), str(tmp_path / "bare.pth"))
