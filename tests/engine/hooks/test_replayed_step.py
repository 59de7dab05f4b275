"""A step that is run again: in the precision and at the progress in which it was recorded."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub

from misalign_det.engine import step_state
from misalign_det.engine.hooks import record_invalid_loss_hook
from misalign_det.engine.hooks.record_invalid_loss_hook import (
    RecordInvalidLossHook,
    read_record,
    replay,
)
from misalign_det.errors import NonFiniteLossError

LATE = dict(iter=900, max_iters=1000, epoch=9, max_epochs=10)


@pytest.fixture(autouse=True)
def hub():
    """The current message hub; empty, as in the process of a tool, and restored afterwards."""
    known = MessageHub.get_current_instance()._runtime_info
    before = dict(known)
    known.clear()
    yield known
    known.clear()
    known.update(before)


@pytest.fixture
def said(monkeypatch):
    """What is logged when a step is run again."""
    lines = []
    monkeypatch.setattr(record_invalid_loss_hook, "print_log",
                        lambda text, logger, level: lines.append((level, text)))  # fmt: skip
    return lines


@pytest.fixture(scope="module")
def config():
    return Config.fromfile(CONFIGS / "jla_triplehead_r18_fpn_12e_bccd.py").model


def recorded(config, folder, dtype=None):
    """The record of a step whose IoU loss is not finite; the forward pass is mixed, if at all."""
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    model.train()
    with torch.no_grad():
        model.bbox_head.conv_iou.bias.fill_(math.nan)
    batch = demo_mm_inputs(1, image_shapes=[(3, 240, 320)], num_items=[3], num_classes=3)
    # Close together, so that locations are positives of several of them.
    corners = [[20, 20, 120, 120], [60, 60, 180, 180], [70, 50, 150, 200]]
    batch["data_samples"][0].gt_instances.bboxes = torch.tensor(corners).float()
    hook = RecordInvalidLossHook()
    runner = SimpleNamespace(model=model, work_dir=str(folder), iter=900)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, batch)
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        losses = model(**model.data_preprocessor(batch, True), mode="loss")
    with pytest.raises(NonFiniteLossError):
        model.parse_losses(losses)
    return read_record(str(folder / "non_finite_step_901.pth"))


def same(found, record):
    """Whether losses are those of a record, to the last bit."""
    return str(found) == str(record["losses"])


def test_mixed_precision_is_that_of_the_step(config, tmp_path, said):
    record = recorded(config, tmp_path, torch.bfloat16)
    assert (record["device"], record["autocast"]) == ("cpu", "bfloat16")
    assert same(replay(MODELS.build(config), record), record)
    assert not torch.is_autocast_enabled("cpu")
    in_float32 = replay(MODELS.build(config), {**record, "autocast": None})
    assert in_float32["loss_bbox"] == pytest.approx(record["losses"]["loss_bbox"], rel=0.1)
    assert in_float32["loss_bbox"] != record["losses"]["loss_bbox"]
    whole = recorded(config, tmp_path)
    assert whole["autocast"] is None and same(replay(MODELS.build(config), whole), whole)
    assert not said


def test_progress_is_that_of_the_step(config, tmp_path, hub):
    """JLAAssigner weighs ambiguous locations at first and decides later."""
    hub.update(LATE)
    record = recorded(config, tmp_path)
    assert record["counters"] == LATE
    hub.clear()
    late = replay(MODELS.build(config), record)
    assert same(late, record) and not hub
    hub.update(iter=0, max_iters=5, other=3)  # of another runner of the process
    assert same(replay(MODELS.build(config), record), record)
    assert dict(hub) == dict(iter=0, max_iters=5, other=3)
    early = replay(MODELS.build(config), {**record, "counters": {}})
    assert early["loss_cls"] != late["loss_cls"]


def test_records_of_before_are_run_again(config, tmp_path, hub, said):
    record = recorded(config, tmp_path)
    for key in ("counters", "device", "autocast"):
        del record[key]
    assert same(replay(MODELS.build(config), record), record)
    assert len(said) == 1 and said[0][0] == logging.WARNING
    assert "of an older version" in said[0][1] and "\n" not in said[0][1]
    hub.update(LATE)  # by the caller, who knows it
    assert replay(MODELS.build(config), record)["loss_cls"] != record["losses"]["loss_cls"]


def test_the_generator_of_the_gpu(monkeypatch):
    """Where one is in use, and the step runs on a GPU again."""
    assert "cuda" not in step_state.random_states()
    state, given = torch.arange(16, dtype=torch.uint8), []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *args: given.append(args))
    states = step_state.random_states()
    step_state.restore_random_states(states)
    assert not given
    step_state.restore_random_states(states, "cuda:1")
    assert given == [(state, "cuda:1")]
    del states["cuda"]  # of an older version, or of a CPU
    step_state.restore_random_states(states, "cuda:1")
    assert len(given) == 1
