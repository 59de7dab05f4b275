"""ChannelsLastHook: another order in memory, the same losses and gradients."""

from types import SimpleNamespace

import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.registry import HOOKS, MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config

import misalign_det  # noqa: F401


def step(model, packed):
    losses = model(**model.data_preprocessor(packed, training=True), mode="loss")
    total = sum(sum(v) if isinstance(v, list) else v for v in losses.values())
    model.zero_grad()
    total.backward()
    return total.item(), [p.grad for p in model.parameters()]


def build(name, **changes):
    cfg = Config.fromfile(CONFIGS / name) if "::" not in name else get_config(name)
    cfg.merge_from_dict(changes)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for module in model.modules():
        # Offsets of 0, with which deformable layers begin, would hide in which order they are.
        if isinstance(module, torch.nn.Conv2d) and module.out_channels in (18, 27, 36):
            torch.nn.init.normal_(module.weight, std=0.1)
    model.eval()  # the statistics of batch norm stay as they are
    if hasattr(model, "bbox_head"):
        model.bbox_head.train()  # VFNet's returns other parts of its output otherwise
    return model


DCN_V2 = {
    "model.backbone.dcn": dict(type="DCNv2", deform_groups=1, fallback_on_stride=False),
    "model.backbone.stage_with_dcn": (False, False, True, True),
}


@pytest.mark.parametrize(
    "name, changes",
    [
        ("jla_triplehead_r18_fpn_12e_bccd.py", {}),
        ("spatial-align_rfahead_r18_fpn_12e_bccd.py", {}),
        ("vfnet_effnet-lite0_fpn_12e_bccd.py", {}),
        ("fcos_r50_fpn_1x_coco.py", DCN_V2),
        ("fcos_r50_fpn_1x_coco.py", {**DCN_V2, "model.backbone.dcn.type": "DCN"}),
        ("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", {"model.backbone.depth": 18,
            "model.neck.in_channels": [64, 128, 256, 512]}),
    ],
)  # fmt: skip
def test_same_step_and_state(name, changes):
    model = build(name, **changes)
    packed = demo_mm_inputs(2, image_shapes=[(3, 96, 128)] * 2, num_items=[2, 3], num_classes=3)
    torch.manual_seed(1)  # of samplers
    loss, grads = step(model, packed)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    HOOKS.build(dict(type="ChannelsLastHook")).before_run(SimpleNamespace(model=model))
    weight = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(1)
    again, same = step(model, packed)
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(same, grads):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)
    model.load_state_dict(state)  # and back, from a checkpoint without it
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
