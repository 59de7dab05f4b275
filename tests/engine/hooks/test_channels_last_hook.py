"""ChannelsLastHook: another order in memory, the same losses and gradients."""

from types import SimpleNamespace

import torch
from helpers.paths import CONFIGS
from mmdet.registry import HOOKS, MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

import misalign_det  # noqa: F401


def step(model, packed):
    losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
    total = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
    model.zero_grad()
    total.backward()
    return total.item(), [p.grad for p in model.parameters()]


def test_same_step_and_state():
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIGS / "jla_triplehead_r18_fpn_12e_bccd.py").model)
    model.init_weights()
    model.eval()  # the statistics of batch norm stay as they are
    packed = demo_mm_inputs(2, image_shapes=[(3, 96, 128)] * 2, num_items=[2, 3], num_classes=3)
    loss, grads = step(model, packed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    HOOKS.build(dict(type="ChannelsLastHook")).before_run(SimpleNamespace(model=model))
    weight = model.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    again, same = step(model, packed)
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(same, grads):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)
    model.load_state_dict(state)  # and back, from a checkpoint without it
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
