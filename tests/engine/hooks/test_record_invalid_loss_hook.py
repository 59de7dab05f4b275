"""A loss that is not finite: what is said, what is saved, and the step run again."""

import errno
import math
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401
from misalign_det.engine import architecture
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.engine.hooks import record_invalid_loss_hook
from misalign_det.engine.hooks.record_invalid_loss_hook import (
    RecordInvalidLossHook,
    image_names,
    read_record,
    replay,
)
from misalign_det.errors import CheckpointError, NonFiniteLossError


def detector():
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIGS / "jla_triplehead_r18_fpn_12e_bccd.py").model)
    model.init_weights()
    return model


def batch():
    packed = demo_mm_inputs(2, image_shapes=[(3, 64, 96)] * 2, num_items=[2, 0], num_classes=3)
    for i, sample in enumerate(packed["data_samples"]):
        sample.set_metainfo(dict(img_path=f"images/{i}.jpg"))
    return packed


def step(model, hook, runner, packed):
    hook.before_train_iter(runner, 0, packed)
    losses = model(**model.data_preprocessor(packed, True), mode="loss")
    return model.parse_losses(losses)


def test_stop_record_and_replay(tmp_path):
    model, packed = detector(), batch()
    hook = HOOKS.build(dict(type="RecordInvalidLossHook"))
    runner = SimpleNamespace(model=model, work_dir=str(tmp_path), iter=41)
    hook.before_train(runner)
    total, _ = step(model, hook, runner, packed)
    assert total.isfinite() and not list(tmp_path.iterdir())
    with torch.no_grad():
        model.bbox_head.conv_iou.bias.fill_(math.nan)
    with pytest.raises(NonFiniteLossError) as error:
        step(model, hook, runner, packed)
    message = str(error.value)
    assert "step 42" in message and "loss_iou = nan" in message
    assert "loss_cls" not in message and "images/0.jpg, images/1.jpg" in message
    (path,) = tmp_path.iterdir()
    assert str(path) in message
    with tensors_only():  # nothing but tensors and Python's own types
        record = torch.load(path)
    again = replay(detector(), record)
    assert again.keys() == record["losses"].keys()
    for name, value in record["losses"].items():
        assert again[name] == pytest.approx(value, rel=1e-5, nan_ok=True)
    hook.after_train(runner)
    assert "parse_losses" not in vars(model) and not model._forward_pre_hooks


def test_a_real_run_ends_with_one_line(tmp_path):
    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, inputs, data_samples, mode="loss"):
            return dict(loss_fine=self.weight * 1, loss_log=(inputs[0] * self.weight).log().sum())

    def collate(items):
        return dict(inputs=list(items), data_samples=[DetDataSample() for _ in items])

    samples = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([0.0])]
    model = Model()
    runner = Runner(
        model=model, work_dir=str(tmp_path), experiment_name="finite", default_scope="mmdet",
        train_dataloader=dict(batch_size=1, dataset=samples, collate_fn=collate,
                              sampler=dict(type="DefaultSampler", shuffle=False)),
        train_cfg=dict(by_epoch=True, max_epochs=1), log_level="ERROR",
        optim_wrapper=dict(type="BFloat16OptimWrapper", optimizer=dict(type="SGD", lr=0.0)),
        custom_hooks=[dict(type="RecordInvalidLossHook")],
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="step 3: loss_log = -inf"):
        runner.train()
    assert model.weight.isfinite()
    record = read_record(str(tmp_path / "non_finite_step_3.pth"))
    assert record["counters"] == dict(iter=2, max_iters=3, epoch=0, max_epochs=1)
    assert (record["device"], record["autocast"]) == ("cpu", "bfloat16")


class Losses(BaseModel):
    """Gives the losses that it is told to, and numbers drawn at random."""

    def __init__(self, **losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.losses = losses
        self.seen = None

    def forward(self, inputs, data_samples=None, mode="loss"):
        self.seen = inputs, data_samples
        drawn = dict(loss_torch=torch.rand(()), loss_numpy=torch.tensor(np.random.rand()),
                     loss_python=torch.tensor(random.random()))  # fmt: skip
        given = {name: self.weight * value for name, value in self.losses.items()}
        return {**given, **drawn}


def stopped(folder, model, batch, iteration=0, wrapper=None):
    """The message and the record of a step that ends in a loss that is not finite."""
    hook = RecordInvalidLossHook()
    runner = SimpleNamespace(model=wrapper or model, work_dir=str(folder), iter=iteration)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, batch)
    with pytest.raises(NonFiniteLossError) as error:
        model.parse_losses(model(**model.data_preprocessor(batch, True), mode="loss"))
    hook.after_train(runner)
    return str(error.value), Path(folder) / f"non_finite_step_{iteration + 1}.pth"


def sample(name=None, **meta):
    return DetDataSample(metainfo={**({"img_path": name} if name else {}), **meta})


def test_finite_losses_whose_sum_is_not(tmp_path):
    batch = dict(inputs=[torch.ones(1)], data_samples=[sample("a.jpg")])
    message, _ = stopped(tmp_path, Losses(loss_a=3e38, loss_b=3e38), batch)
    assert message.startswith("step 1: loss = inf. Images: a.jpg. ")
    message, _ = stopped(tmp_path, Losses(loss_a=math.inf, loss_b=1.0), batch)
    assert message.startswith("step 1: loss_a = inf. Images: a.jpg. ")


def test_the_last_checkpoint_is_named_if_there_is_one(tmp_path):
    batch = dict(inputs=[torch.ones(1)], data_samples=[sample("a.jpg")])
    message, _ = stopped(tmp_path, Losses(loss=math.nan), batch)
    assert f"No weight was updated, and there is no checkpoint in {tmp_path} yet. The" in message
    last = tmp_path / "epoch_1.pth"
    last.write_bytes(b"")
    (tmp_path / "last_checkpoint").write_text(str(last))
    message, _ = stopped(tmp_path, Losses(loss=math.nan), batch)
    assert f"No weight was updated, and the last checkpoint, {last}, is intact. The" in message


def test_each_process_has_its_own_record(tmp_path, monkeypatch):
    batch = dict(inputs=[torch.ones(1)], data_samples=[sample("a.jpg")])
    monkeypatch.setattr(record_invalid_loss_hook, "get_rank", lambda: 3)
    message, _ = stopped(tmp_path, Losses(loss=math.nan), batch, iteration=6)
    assert [path.name for path in tmp_path.iterdir()] == ["non_finite_step_7_rank3.pth"]
    assert str(tmp_path / "non_finite_step_7_rank3.pth") in message


def test_random_numbers_are_those_of_the_step(tmp_path):
    """Of this step and no other, from all three generators."""
    hook, model = RecordInvalidLossHook(), Losses(loss=1.0)
    runner = SimpleNamespace(model=model, work_dir=str(tmp_path), iter=0)
    batch = dict(inputs=[torch.ones(1)], data_samples=[sample("a.jpg")])
    hook.before_train(runner)
    for runner.iter in range(2):
        hook.before_train_iter(runner, 0, batch)
        model.losses = dict(loss=math.nan if runner.iter else 1.0)
        losses = model(**batch)
        if runner.iter:
            with pytest.raises(NonFiniteLossError):
                model.parse_losses(losses)
    record = read_record(str(tmp_path / "non_finite_step_2.pth"))
    for _ in range(2):
        again = replay(Losses(loss=math.nan), record)
        for name in ("loss_torch", "loss_numpy", "loss_python"):
            assert again[name] == record["losses"][name] == pytest.approx(float(losses[name]))


def test_the_model_is_found_inside_its_wrapper(tmp_path, monkeypatch):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    monkeypatch.setattr(architecture, "is_model_wrapper", lambda model: isinstance(model, Wrapper))
    model = Losses(loss=math.nan)
    batch = dict(inputs=[torch.ones(1)], data_samples=[sample()])
    message, path = stopped(tmp_path, model, batch, wrapper=Wrapper(Wrapper(model)))
    assert "Images: an image without a path." in message
    assert list(torch.load(path)["state_dict"]) == ["weight"]
    assert "parse_losses" not in vars(model)


def boxes(*rows):
    return InstanceData(bboxes=torch.tensor(rows).float().reshape(-1, 4),
                        labels=torch.zeros(len(rows), dtype=torch.int64))  # fmt: skip


def test_branches_and_views(tmp_path):
    """Semi-supervised: a dict of branches, with None where an image has no such branch."""
    labelled, free = sample("a.jpg", matrix=np.eye(3)), sample("b.jpg", scale_factor=np.float32(2))
    labelled.gt_instances = boxes([1, 2, 3, 4])
    batch = dict(
        inputs=dict(sup=[torch.ones(2), None], unsup=[None, torch.zeros(3)]),
        data_samples=dict(sup=[labelled, None], unsup=(None, free)),
    )
    message, path = stopped(tmp_path, Losses(sup_loss_cls=math.nan), batch)
    assert message.startswith("step 1: sup_loss_cls = nan. Images: a.jpg, b.jpg. ")
    record = read_record(str(path))
    assert image_names(record) == ["a.jpg", "b.jpg"]
    model = Losses(sup_loss_cls=math.nan)
    assert math.isnan(replay(model, record)["sup_loss_cls"])
    inputs, samples = model.seen
    assert torch.equal(inputs["sup"][0], torch.ones(2)) and inputs["sup"][1] is None
    assert torch.equal(inputs["unsup"][1], torch.zeros(3))
    assert samples["sup"][1] is None and samples["unsup"][0] is None
    first, second = samples["sup"][0], samples["unsup"][1]
    np.testing.assert_array_equal(first.matrix, np.eye(3))
    assert isinstance(first.matrix, np.ndarray) and second.scale_factor == 2.0
    assert first.gt_instances.bboxes.tolist() == [[1, 2, 3, 4]]
    # several views of each image, as with test-time augmentation
    views = dict(inputs=[[torch.ones(1)] * 2], data_samples=[(sample("a.jpg"), sample("a.jpg"))])
    message, path = stopped(tmp_path, Losses(loss=math.nan), views)
    assert "Images: a.jpg. " in message
    replay(model, read_record(str(path)))
    assert [[s.img_path for s in item] for item in model.seen[1]] == [["a.jpg", "a.jpg"]]


@pytest.mark.parametrize("samples", [None, [torch.tensor(3)], [dict(target=torch.ones(1))]])
def test_a_batch_that_is_not_mmdets(tmp_path, samples):
    message, path = stopped(
        tmp_path, Losses(loss=math.nan), dict(inputs=torch.ones(1, 3), data_samples=samples)
    )
    name = "unknown" if samples is None else "an image without a path"
    assert f"Images: {name}. " in message
    model = Losses(loss=math.nan)
    replay(model, read_record(str(path)))
    assert torch.equal(model.seen[0], torch.ones(1, 3))
    assert str(model.seen[1]) == str(samples)


def test_the_loss_is_named_where_the_step_cannot_be_saved(tmp_path, monkeypatch):
    def full(content, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    batch = dict(inputs=[torch.ones(1)], data_samples=[sample("a.jpg")])
    message, path = stopped(tmp_path, Losses(loss=math.nan), batch)
    assert message.startswith("step 1: loss = nan. Images: a.jpg. ")
    assert f"The step could not be saved in {path}: " in message and "No space left" in message
    assert not path.exists()


def test_files_that_are_no_records(tmp_path):
    with pytest.raises(
        CheckpointError, match="there is no saved step .*x.pth. RecordInvalidLossHook wri"
    ):
        read_record(str(tmp_path / "x.pth"))
    torch.save(dict(state_dict={}), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="x.pth is not a step that Record"):
        read_record(str(tmp_path / "x.pth"))
