"""Checkpoints and configs of version 0.1.0: detections, training resumed, old and new spelling.

tests/data/checkpoints/record.py wrote them. The weights agree with what that version computed to
rounding (1e-4 of a score, 1e-2 of a pixel), which other processors and versions of torch change.
"""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.old_checkpoints import write_images
from mmengine.config import Config
from mmengine.runner import Runner

from misalign_det.apis.detector import load_detector
from misalign_det.engine.checkpoint import check_checkpoint, tensors_only
from misalign_det.errors import CheckpointError
from misalign_det.utils import old_names

DATA = Path(__file__).parents[2] / "data/checkpoints"
HEADS = ("TripleHead", "RFAHead")
NEW_NAMES = dict(
    prior_distance="init_distance", offset_gradient="gradient_mul", confidence_target="iou_target",
    with_confidence="with_iou_branch", loss_confidence="loss_iou", with_quality="with_iou_branch",
    quality_on="iou_branch_on", loss_quality="loss_iou", boundary="separation",
    precision_init="precisions_init", gt_balance="per_gt_reweight",
    conv_confidence="conv_iou", conv_quality="conv_iou", SafeCheckpointHook="AtomicCheckpointHook",
    FiniteLossHook="RecordInvalidLossHook",
)  # fmt: skip


def new_name(text):
    for old, new in NEW_NAMES.items():
        text = text.replace(old, new)
    return text


def load(head, spelling="old"):
    """The config that the checkpoint itself holds, the checkpoint's path, and what was recorded."""
    path = DATA / f"{head}.pth"
    with tensors_only():
        text = torch.load(path)["meta"]["cfg"]
    cfg = Config.fromstring(text if spelling == "old" else new_name(text), ".py")
    return cfg, str(path), np.load(DATA / f"{head}.npz")


@pytest.fixture(autouse=True)
def in_a_folder_with_the_images(tmp_path, monkeypatch):
    """The configs say data_root = 'data/'. Each test gets its own warnings."""
    write_images(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    old_names._warn.cache_clear()


def test_the_names_differ():
    """What the tests below show: every old name of a head occurs in one of the configs."""
    text = "".join(load(head)[0].pretty_text for head in HEADS)
    assert all(old in text for old in NEW_NAMES if not old.startswith("conv_"))
    assert not any(old in new_name(text) for old in NEW_NAMES)


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("head", HEADS)
def test_the_detections_are_those_of_that_version(head, spelling):
    cfg, path, record = load(head, spelling)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load_detector(cfg, path)
    found = [str(w.message) for w in caught if w.category is old_names.RenamedWarning]
    loss = "loss_confidence" if head == "TripleHead" else "loss_quality"
    assert any(f"{loss} is now called loss_iou" in text for text in found) == (spelling == "old")
    assert bool(found) == (spelling == "old")
    loader = Runner.build_dataloader(cfg.test_dataloader)
    with torch.no_grad():
        for number, batch in zip(range(2), loader):
            (result,) = model.test_step(batch)
            result = result.pred_instances
            assert result.labels.tolist() == record[f"labels{number}"].tolist()
            for key, tolerance in (("scores", 1e-4), ("bboxes", 1e-2)):
                expected = torch.from_numpy(record[f"{key}{number}"])
                assert len(expected) > 5
                torch.testing.assert_close(result[key], expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("head", HEADS)
def test_a_resumed_training_is_the_uninterrupted_one(head, spelling):
    """Weights and losses after the second epoch: the optimizer's momentum reaches its layers."""
    cfg, path, record = load(head, spelling)
    shutil.copy(path, "old.pth")
    cfg.merge_from_dict(dict(resume=True, load_from="old.pth", work_dir="work_dirs"))
    with tensors_only():
        runner = Runner.from_cfg(cfg)
        check_checkpoint(runner.model, "old.pth", resume=True)
        runner.train()
    assert runner.iter == 4
    state = runner.model.bbox_head.state_dict()
    names = [name for name in record.files if name.startswith("end.") and "/" not in name]
    assert len(names) == len(state)
    for name in names:
        found = state[new_name(name.removeprefix("end."))]
        torch.testing.assert_close(found, torch.from_numpy(record[name]), rtol=1e-3, atol=1e-4)
    for name in record.files:
        if "loss" in name:
            value = runner.message_hub.get_scalar(new_name(name.removeprefix("end."))).current()
            assert value == pytest.approx(record[name].item(), rel=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_momentum_of_other_layers_is_another_training(head):
    """The tolerance above is finer than what a wrong order of the parameters does."""
    cfg, path, record = load(head)
    with tensors_only():
        content = torch.load(path)
    states = content["optimizer"]["state"]
    for state in states.values():
        state["momentum_buffer"] = torch.zeros_like(state["momentum_buffer"])
    torch.save(content, "old.pth")
    cfg.merge_from_dict(dict(resume=True, load_from="old.pth", work_dir="work_dirs"))
    with tensors_only():
        runner = Runner.from_cfg(cfg)
        runner.train()
    old = "conv_confidence" if head == "TripleHead" else "conv_quality"
    found = runner.model.bbox_head.conv_iou.weight
    expected = torch.from_numpy(record[f"end.{old}.weight"])
    assert not torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_without_the_branch_of_its_config_is_still_refused():
    cfg, path, _ = load("RFAHead", "new")
    cfg.model.bbox_head.update(with_iou_branch=False, score_mode="class")
    with pytest.raises(CheckpointError, match="conv_quality|conv_iou"):
        load_detector(cfg, path)
