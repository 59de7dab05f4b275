"""The dense heads of mmdet's stock configs, small, with random outputs."""

import functools

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch import nn

from helpers.paths import MMDET_CONFIGS
from helpers.stock_configs import CONFIGS

NAMES = [name for name in CONFIGS if name != "Faster R-CNN"]
SIZE = 384  # DDOD's deformable layers want three locations on the coarsest level
META = dict(img_shape=(SIZE, SIZE), scale_factor=(1.5, 0.75))


@functools.cache
def stock_model(name):
    return Config.fromfile(MMDET_CONFIGS / CONFIGS[name]).model


def head_config(name, **test_cfg):
    """Config of the detector's head with few channels and 3 classes.

    Args:
        name: one of NAMES.
        **test_cfg: added to that of the stock config, whose score_thr is 0.
    """
    model = stock_model(name).to_dict()
    head = dict(model["bbox_head"], num_classes=3, in_channels=16, feat_channels=16)
    head.update(stacked_convs=1, train_cfg=model.get("train_cfg"))
    if name == "TOOD":
        head.update(num_dcn=0, stacked_convs=2)
    if name in ("ATSS", "GFL", "PAA", "VFNet", "DDOD", "TOOD", "FCOS", "AutoAssign"):
        head.update(norm_cfg=dict(type="GN", num_groups=4))
    limits = dict(score_thr=0.0, nms_pre=200, max_per_img=40, min_bbox_size=0)
    head["test_cfg"] = ConfigDict({**model["test_cfg"], **limits, **test_cfg})
    if name == "PAA":
        head["score_voting"] = False
    return head


def spread(head):
    """The head with weights with which scores and boxes differ from location to location."""
    torch.manual_seed(0)
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    for name, module in head.named_modules():  # distances that make boxes overlap
        if name == "conv_reg" or name.startswith("rtm_reg."):
            nn.init.constant_(module.bias, 3.5)
    return head.eval()


def build(config):
    return spread(MODELS.build(ConfigDict(config)))


def levels(head, device="cpu"):
    torch.manual_seed(1)
    strides = [int(max(s)) if isinstance(s, tuple) else int(s)
               for s in head.prior_generator.strides]  # fmt: skip
    return tuple(torch.randn(2, 16, SIZE // s, SIZE // s, device=device) for s in strides)


@torch.no_grad()
def detections(head, **kwargs):
    """Of two images, in pixels of the original images."""
    outputs = head(levels(head, next(head.parameters()).device))
    return head.predict_by_feat(*outputs, batch_img_metas=[META, META], rescale=True, **kwargs)
