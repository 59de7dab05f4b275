"""A loss that is not finite: what is said, what is saved, and the step run again."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

import misalign_det  # noqa: F401
from misalign_det.engine.checkpoint_io import tensors_only
from misalign_det.engine.finite_loss import NonFiniteLossError, replay

CONFIGS = Path(__file__).parents[2] / "configs"


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
    hook = HOOKS.build(dict(type="FiniteLossHook"))
    runner = SimpleNamespace(model=model, work_dir=str(tmp_path), iter=41)
    hook.before_train(runner)
    total, _ = step(model, hook, runner, packed)
    assert total.isfinite() and not list(tmp_path.iterdir())
    with torch.no_grad():
        model.bbox_head.conv_confidence.bias.fill_(math.nan)
    with pytest.raises(NonFiniteLossError) as error:
        step(model, hook, runner, packed)
    message = str(error.value)
    assert "step 42" in message and "loss_confidence = nan" in message
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
    assert "parse_losses" not in vars(model)


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
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.0)),
        custom_hooks=[dict(type="FiniteLossHook")],
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="step 3: loss_log = -inf"):
        runner.train()
    assert (tmp_path / "non_finite_step_3.pth").is_file()
    assert model.weight.isfinite()
