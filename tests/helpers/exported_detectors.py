"""Small detectors with each head of the package, and images as their test pipeline gives them."""

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from helpers.every_head import COMMON, HEADS, TEST_CFG
from misalign_det.models.layers import RFAConv2d

CLASS_LAYERS = ("conv_cls", "gfl_cls", "atss_cls", "retina_cls")


def make_detector(head, test_cfg=None, **options):
    """A detector in eval mode with random weights, whose scores, boxes and offsets differ."""
    arguments = dict(HEADS[head][0])
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            type="SingleStageDetector",
            data_preprocessor=dict(
                type="DetDataPreprocessor",
                mean=[123.7, 116.3, 103.5],
                std=[58.4, 57.1, 57.4],
                bgr_to_rgb=True,
                pad_size_divisor=32,
            ),
            backbone=dict(type="ResNet", depth=18, base_channels=8),
            neck=dict(
                type="FPN",
                in_channels=[8, 16, 32, 64],
                out_channels=16,
                start_level=1,
                add_extra_convs="on_output",
                num_outs=5,
            ),
            bbox_head=dict(type=head, **COMMON, **arguments, **options),
            test_cfg={**TEST_CFG, **(test_cfg or {})},
        )
    )
    model.init_weights()
    for name, layer in model.bbox_head.named_modules():
        if name in CLASS_LAYERS:
            torch.nn.init.normal_(layer.weight, std=0.3)
        elif name in ("conv_reg", "conv_iou"):
            torch.nn.init.normal_(layer.weight, std=0.05)
        elif isinstance(layer, RFAConv2d):
            torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    model.dataset_meta = dict(classes=("a", "b", "c", "d"))
    return model.eval()


def make_items(*sizes, scale=(1.5, 1.5)):
    """An item of a test pipeline for each (H, W)."""
    random = np.random.default_rng(0)
    items = []
    for height, width in sizes:
        image = random.integers(0, 256, (3, height, width), dtype=np.uint8)
        sample = DetDataSample(
            metainfo=dict(img_shape=(height, width), ori_shape=(99, 99), scale_factor=scale)
        )
        items.append(dict(inputs=torch.from_numpy(image), data_samples=sample))
    return items
