"""What cannot be exported is refused by name."""

import pytest
import torch
from helpers.exported_detectors import make_detector
from mmcv.ops import DeformConv2dPack
from mmdet.models.dense_heads import PAAHead
from torch import nn

from misalign_det.apis.export.detector_graph import DetectorGraph, fixed_padding
from misalign_det.apis.export.nms_graph import NMSGraph
from misalign_det.errors import InputError
from misalign_det.models import EfficientNetLite0


def test_not_a_one_stage_detector():
    with pytest.raises(InputError, match="Linear cannot be exported: it is not a one-stage"):
        DetectorGraph(nn.Linear(1, 1))


def test_a_head_with_a_decoding_of_its_own():
    model = make_detector("DCATSSHead")
    model.bbox_head.__class__ = PAAHead
    with pytest.raises(InputError, match="PAAHead cannot be exported"):
        DetectorGraph(model)


def test_deformable_convolutions_of_mmcv():
    model = make_detector("DCFCOSHead")
    model.backbone.layer1[0].conv2 = DeformConv2dPack(8, 8, 3, padding=1)
    with pytest.raises(InputError, match="^backbone.layer1.0.conv2 cannot be exported"):
        DetectorGraph(model)


@pytest.mark.parametrize(
    ("test_cfg", "named"),
    [
        (dict(nms=dict(type="CLBalancedNMS", iou_threshold=0.6)), "nms=CLBalancedNMS"),
        (dict(nms=dict(type="soft_nms", iou_threshold=0.6)), "nms=soft_nms"),
        (dict(nms=dict(type="nms", iou_threshold=0.6, max_num=5)), "nms.max_num"),
        (dict(nms=None), "nms=None"),
        (dict(min_bbox_size=4), "min_bbox_size counts pixels"),
        (dict(max_per_img=-1), "max_per_img"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nms_without_a_form_in_onnx(test_cfg, named):
    model = make_detector("RFAHead", test_cfg)
    DetectorGraph(model)
    with pytest.raises(InputError, match=named):
        NMSGraph(model)


@torch.no_grad()
def test_fixed_padding_is_the_adaptive_one():
    torch.manual_seed(0)
    model = EfficientNetLite0()
    model.eval()
    images = torch.randn(1, 3, 64, 96)
    expected = model(images)
    with fixed_padding(model):
        found = model(images)
        assert any("forward" in vars(layer) for layer in model.modules())
    assert not any("forward" in vars(layer) for layer in model.modules())
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)
