"""CLBalancedNMS in the test_cfg of mmdet's own configs, with nothing but custom_imports."""

import pytest
import torch
from helpers.paths import MMDET_CONFIGS
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

ONE_STAGE = [
    "retinanet/retinanet_r50_fpn_1x_coco.py",
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "atss/atss_r50_fpn_1x_coco.py",
    "gfl/gfl_r50_fpn_1x_coco.py",
    "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "yolox/yolox_tiny_8xb8-300e_coco.py",
]
TWO_STAGE = [
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
]


def configs_with_nms(test_cfg):
    """Every dict of a test_cfg that names an NMS."""
    if "nms" in test_cfg:
        yield test_cfg
    for value in test_cfg.values():
        if isinstance(value, dict) and value is not test_cfg.get("nms"):
            yield from configs_with_nms(value)


def detections(tmp_path, name, options):
    """Detections of an untrained detector with the NMS options of its config changed."""
    text = (
        f"_base_ = {str(MMDET_CONFIGS / name)!r}\ncustom_imports = dict(imports=['misalign_det'])\n"
    )
    (tmp_path / "config.py").write_text(text)
    model = Config.fromfile(tmp_path / "config.py").model
    model.backbone.init_cfg = None
    found = list(configs_with_nms(model.test_cfg))
    assert found
    for part in found:
        part.nms.update(options)
        part.score_thr = 0.0
    torch.manual_seed(0)
    detector = MODELS.build(model).eval()
    detector.init_weights()
    for module in detector.modules():  # spread scores, so that suppression has something to do
        if isinstance(module, torch.nn.Conv2d) and module.out_channels in (80, 720):
            torch.nn.init.normal_(module.weight, std=0.3)
    packed = demo_mm_inputs(1, image_shapes=[(3, 128, 128)], num_items=[2], num_classes=80)
    with torch.no_grad():
        (sample,) = detector(**detector.data_preprocessor(packed, False), mode="predict")
    return sample.pred_instances


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STAGE + TWO_STAGE)
def test_gamma_zero_changes_nothing_and_the_default_runs(tmp_path, name):
    plain = detections(tmp_path, name, dict(type="nms"))
    zero = detections(tmp_path, name, dict(type="CLBalancedNMS", gamma=0))
    assert len(plain) > 0
    for key in ("bboxes", "scores", "labels"):
        assert torch.equal(plain[key], zero[key])
    balanced = detections(tmp_path, name, dict(type="CLBalancedNMS", gamma=1.0, sigma=0.1))
    assert len(balanced) > 0 and balanced.bboxes.isfinite().all()
    assert (balanced.scores.diff() <= 0).all()


def test_multiclass_nms():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 15 + torch.rand(40, 2, generator=generator) * 5], 1)
    scores = torch.rand(40, 4, generator=generator)
    plain, balanced = (
        multiclass_nms(boxes, scores, 0.05, dict(iou_threshold=0.5, **options), 30)
        for options in (dict(type="nms"), dict(type="CLBalancedNMS", gamma=0))
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, balanced))
    dets, labels = multiclass_nms(
        boxes, scores, 0.05, dict(type="CLBalancedNMS", iou_threshold=0.5, gamma=2.0), 30
    )
    assert len(dets) == len(labels) > 0 and not torch.equal(dets[:, :4], plain[0][: len(dets), :4])
