"""Optimizers of before EfficientNetLite0 froze its stages when built: the same training."""

import copy

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.optim import LinearLR, build_optim_wrapper

from misalign_det.engine.optimizer_groups import leave_out_frozen

SETTINGS = dict(
    optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0,
        custom_keys={"layers.0": dict(lr_mult=0.5), "layers.2.1": dict(lr_mult=0.1)},
    ),
)


class Detector(BaseModel):
    def __init__(self, stages):
        super().__init__()
        norm_cfg = dict(type="BN", eps=1e-3)
        self.backbone = MODELS.build(
            dict(
                type="EfficientNetLite0", frozen_stages=stages, out_indices=(2,), norm_cfg=norm_cfg
            )
        )
        self.head = torch.nn.Conv2d(24, 1, 1)

    def forward(self, inputs, data_samples=None, mode="loss"):
        return dict(loss=self.head(self.backbone(inputs)[0]).square().mean())


class Training:
    """A detector, its optimizer and its schedule; the stages frozen when built, or later."""

    def __init__(self, stages, late=False, **settings):
        torch.manual_seed(0)
        self.model = Detector(stages)
        for name in self.model.backbone.frozen_when_built if late else ():
            self.model.backbone.get_parameter(name).requires_grad = True
        self.wrapper = build_optim_wrapper(self.model, {**SETTINGS, **settings})
        self.schedule = LinearLR(self.wrapper, start_factor=0.1, end=9)
        self.model.train()

    def go_on(self, steps):
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.schedule.last_step)
            self.wrapper.update_params(self.model(torch.rand(2, 3, 32, 32, generator=generator))
                                       ["loss"])  # fmt: skip
            self.schedule.step()

    def saved(self):
        parts = dict(
            state_dict=self.model.state_dict(),
            optimizer=self.wrapper.state_dict(),
            param_schedulers=[self.schedule.state_dict()],
        )
        return copy.deepcopy(parts)

    def resume(self, checkpoint):
        leave_out_frozen(self.model, checkpoint)
        self.model.load_state_dict(checkpoint["state_dict"])
        self.wrapper.load_state_dict(checkpoint["optimizer"])
        self.schedule.load_state_dict(checkpoint["param_schedulers"][0])


def equal(first, second):
    first, second = (training.model.state_dict() for training in (first, second))
    return all(torch.equal(value, second[name]) for name, value in first.items())


def groups(training):
    """Name, learning rate and decay of each parameter that is trained."""
    names = {id(p): name for name, p in training.model.named_parameters()}
    return [
        (names[id(p)], group["lr"], group["initial_lr"], group["weight_decay"])
        for group in training.wrapper.optimizer.param_groups
        for p in group["params"]
        if p.requires_grad
    ]


def test_a_training_is_the_same_and_goes_on_from_an_older_checkpoint():
    older, now = Training(2, late=True), Training(2)
    parameters = [name for name, _ in older.model.named_parameters()]
    assert parameters == [name for name, _ in now.model.named_parameters()]
    assert groups(older) == groups(now)
    fewer = len(older.wrapper.param_groups) - len(now.wrapper.param_groups)
    assert fewer == len(now.model.backbone.frozen_when_built) == 9
    older.go_on(2), now.go_on(2)
    assert equal(older, now)
    resumed = Training(2)
    resumed.resume(older.saved())
    assert groups(resumed) == groups(older)
    rates = [group["initial_lr"] for group in resumed.wrapper.param_groups]
    assert resumed.schedule.base_values == rates
    older.go_on(2), resumed.go_on(2)
    assert equal(older, resumed) and not equal(older, now)
    assert groups(resumed) == groups(older)
    assert resumed.wrapper.get_lr()["base_lr"] == older.wrapper.get_lr()["base_lr"]


def test_one_group_holds_all_parameters_before_and_now():
    """Without paramwise_cfg."""
    older, now = (Training(2, late, paramwise_cfg=None) for late in (True, False))
    named = [
        [id(p) for p in training.wrapper.param_groups[0]["params"]] for training in (older, now)
    ]
    assert named == [[id(p) for p in t.model.parameters()] for t in (older, now)]
    older.go_on(2)
    now.resume(older.saved())
    older.go_on(1), now.go_on(1)
    assert equal(older, now)


def test_other_checkpoints_stay_as_they_are():
    now = Training(2)
    now.go_on(1)
    several = dict(optimizer={"first": now.wrapper.state_dict()}, param_schedulers={"first": []})
    for model, checkpoint in (
        (now.model, now.saved()),
        (Detector(0), now.saved()),
        (Detector(3), now.saved()),
        (now.model, several),
        (now.model, {}),
    ):
        before = copy.deepcopy(checkpoint)
        leave_out_frozen(model, checkpoint)
        assert str(checkpoint) == str(before)
