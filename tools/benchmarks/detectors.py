"""The detectors that step.py times, at two scales, and what it times of them."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch import nn

from misalign_det.engine.hooks.channels_last_hook import to_channels_last

OURS = Path(__file__).resolve().parents[2] / "configs"
STOCK = Path(mmdet.__file__).parent / ".mim/configs"
SCALES = {
    "r18": dict(
        shape=(3, 240, 320), batch=8, objects=13, classes=3,
        fcos="fcos_r18_fpn_12e_bccd",
        others={"TripleHead + JLA": "jla_triplehead_r18_fpn_12e_bccd",
                "RFAHead + SpatialAlign": "spatial-align_rfahead_r18_fpn_12e_bccd",
                "RetinaNet + IAC + DC": "iac-dc_retinanet_r18_fpn_12e_bccd"},
    ),
    "r50": dict(
        shape=(3, 800, 1333), batch=1, objects=7, classes=80,
        fcos="fcos_r50_fpn_1x_coco",
        others={"TripleHead + JLA": "jla_triplehead_r50_fpn_1x_coco",
                "RFAHead + SpatialAlign": "spatial-align_rfahead_r50_fpn_1x_coco",
                "RetinaNet + IAC + DC": "iac-dc_retinanet_r50_fpn_12e_coco"},
    ),
}  # fmt: skip
PEERS = {
    "RetinaNet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "ATSS": "atss/atss_r50_fpn_1x_coco.py",
    "PAA": "paa/paa_r50_fpn_1x_coco.py",
    "TOOD": "tood/tood_r50_fpn_1x_coco.py",
}


def peer(path: str, scale: str) -> Any:
    """One of mmdet's configs, at this scale."""
    model = Config.fromfile(STOCK / path).model
    if scale == "r18":  # with this package's backbone and neck, and smaller towers
        small = Config.fromfile(OURS / "fcos_r18_fpn_12e_bccd.py").model
        model.backbone, model.neck = small.backbone, small.neck
        model.data_preprocessor = small.data_preprocessor
        model.bbox_head.update(in_channels=64, feat_channels=64, num_classes=3)
        model.bbox_head.stacked_convs = 2 if model.bbox_head.type != "TOODHead" else 3
        model.bbox_head.norm_cfg = dict(type="GN", num_groups=16, requires_grad=True)
    return model


def build(model: Any, device: str, channels_last: bool = False) -> nn.Module:
    """An untrained detector."""
    model = deepcopy(model)
    model.backbone.init_cfg = None
    torch.manual_seed(0)
    detector = MODELS.build(model)
    detector.init_weights()
    # TOOD reads it: after its first epochs, in which it uses ATSS.
    MessageHub.get_current_instance().update_info("epoch", 100)
    detector = detector.to(device)
    return to_channels_last(detector) if channels_last else detector


def training_step(
    detector: nn.Module, optimizer: torch.optim.Optimizer, packed: dict, device: str, amp: bool
) -> None:
    """Losses, gradients, optimizer."""
    detector.train()
    kind = torch.float16 if device.startswith("cuda") else torch.bfloat16
    data = detector.data_preprocessor(packed, True)
    with torch.autocast(device.split(":")[0], kind, enabled=amp):
        losses = detector(**data, mode="loss")
        total = sum(sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()


@torch.no_grad()
def inference(detector: nn.Module, packed: dict, device: str, amp: bool) -> list:
    """Network, decoding, NMS."""
    detector.eval()
    kind = torch.float16 if device.startswith("cuda") else torch.bfloat16
    data = detector.data_preprocessor(packed, False)
    with torch.autocast(device.split(":")[0], kind, enabled=amp):
        return detector(**data, mode="predict")
