"""What the report measures: any detector's test_cfg, ids, evaluators; gaps."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

import misalign_det  # noqa: F401
from misalign_det.analysis.report.measurement import annotation_file, measure
from misalign_det.errors import InputError

STRIDES = [8, 16, 32]
COMMON = dict(num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1)
GN = dict(type="GN", num_groups=2)
CFG = dict(nms_pre=50, min_bbox_size=0, score_thr=0.0, max_per_img=20,
           nms=dict(type="nms", iou_threshold=0.6))  # fmt: skip
ANCHORS = dict(type="AnchorGenerator", ratios=[1.0], octave_base_scale=4, scales_per_octave=1,
               strides=STRIDES)  # fmt: skip
RESNET = dict(
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
    backbone=dict(type="ResNet", depth=18, base_channels=8, out_indices=(1, 2, 3)),
    neck=dict(type="FPN", in_channels=[16, 32, 64], out_channels=8, num_outs=3),
)
DETECTORS = {
    "FCOS": dict(
        RESNET, type="FCOS", test_cfg=CFG,
        bbox_head=dict(COMMON, type="FCOSHead", strides=STRIDES, norm_cfg=GN,
                       regress_ranges=((-1, 64), (64, 128), (128, 1e8)))),
    "FCOS, soft": dict(
        RESNET, type="FCOS", test_cfg=dict(CFG, nms=dict(type="soft_nms")),
        bbox_head=dict(COMMON, type="FCOSHead", strides=STRIDES, norm_cfg=GN,
                       regress_ranges=((-1, 64), (64, 128), (128, 1e8)))),
    "PAA": dict(
        RESNET, type="PAA", test_cfg=CFG,
        bbox_head=dict(COMMON, type="PAAHead", anchor_generator=ANCHORS, norm_cfg=GN)),
    "RTMDet": dict(
        RESNET, type="RTMDet", test_cfg=dict(CFG, min_bbox_size=0),
        bbox_head=dict(COMMON, type="RTMDetHead", with_objectness=False, norm_cfg=GN,
                       anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=STRIDES),
                       bbox_coder=dict(type="DistancePointBBoxCoder"),
                       loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True),
                       loss_bbox=dict(type="GIoULoss"))),
    # As mmdet's own config has it: no nms_pre, no max_per_img.
    "YOLOX": dict(
        type="YOLOX", data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
        backbone=dict(type="CSPDarknet", deepen_factor=0.33, widen_factor=0.125),
        neck=dict(type="YOLOXPAFPN", in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
        bbox_head=dict(type="YOLOXHead", num_classes=2, in_channels=32, feat_channels=32),
        test_cfg=dict(score_thr=0.0, nms=dict(type="nms", iou_thr=0.65))),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images, one empty, one with a crowd region; ids are texts, objects count from 0."""
    root = tmp_path_factory.mktemp("data")
    for name in "abc":
        cv2.imwrite(str(root / f"{name}.png"), np.full((64, 96, 3), 90, np.uint8))
    boxes = [("a", "x", [10, 10, 30, 30], 0), ("a", "y", [50, 5, 30, 50], 0),
             ("c", "x", [20, 20, 40, 20], 0), ("c", "x", [0, 0, 90, 60], 1)]  # fmt: skip
    content = dict(
        images=[dict(id=f"img_{name}", file_name=f"{name}.png", width=96, height=64)
                for name in "abc"],
        categories=[dict(id="x", name="disc"), dict(id="y", name="box")],
        annotations=[dict(id=i, image_id=f"img_{image}", category_id=category, bbox=box,
                          area=box[2] * box[3], iscrowd=crowd)
                     for i, (image, category, box, crowd) in enumerate(boxes)])  # fmt: skip
    (root / "ann.json").write_text(json.dumps(content))
    return root


def config(folder, name, **parts):
    pipeline = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(96, 64)),
                dict(type="LoadAnnotations", with_bbox=True),
                dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape",
                                                      "img_shape", "scale_factor"))]  # fmt: skip
    loader = dict(
        batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type="CocoDataset", data_root=str(folder), ann_file="ann.json", test_mode=True,
                     data_prefix=dict(img=""),
                     metainfo=dict(classes=("disc", "box")), pipeline=pipeline))  # fmt: skip
    evaluator = dict(type="CocoMetric", ann_file=str(folder / "ann.json"), metric="bbox")
    return Config(dict(model=DETECTORS[name], val_dataloader=loader, val_evaluator=evaluator)
                  | parts)  # fmt: skip


def detector(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.eval()


@pytest.mark.parametrize("name", DETECTORS)
def test_every_test_cfg(folder, name):
    cfg = config(folder, name)
    found = measure(detector(cfg), cfg, progress=False)
    assert found.num_images == 3 and found.classes == ("disc", "box")
    own = "soft_nms" if name == "FCOS, soft" else "nms"
    assert [row["name"] for row in found.regret] == [own, "CLBalancedNMS"]
    expected = {"YOLOX": 0.65, "FCOS, soft": 0.3}.get(name, 0.6)
    assert found.regret[1]["nms"]["iou_threshold"] == expected
    assert all(row["AP_oracle"] >= row["AP"] - 1e-9 for row in found.regret)
    if name.startswith(("FCOS", "RTMDet", "YOLOX")):
        # The candidates under the head's own suppression are the head's own detections.
        assert found.regret[0]["AP"] == pytest.approx(found.metrics["AP"], abs=1e-6)
    counts = [found.metrics[k] for k in ("correct", "redundant", "error", "background")]
    assert sum(counts) <= len(found.detections) and len(found.detections) > 3
    assert bool(found.gaps) == (not found.gaps_missing)
    if name.startswith("FCOS"):
        assert found.gaps[0]["objects"] == 3  # the crowd region is none


def test_clbalanced_nms_is_compared_with_the_detectors_other_options(folder):
    cfg = config(folder, "FCOS")
    cfg.model.test_cfg.nms.update(class_agnostic=True, max_num=3)
    found = measure(detector(cfg), cfg, progress=False, resamples=0)
    own, balanced = (dict(row["nms"]) for row in found.regret)
    assert balanced == dict(own, type="CLBalancedNMS")


def test_without_an_evaluators_file_the_datasets_objects_count(folder):
    cfg = config(folder, "FCOS")
    model = detector(cfg)
    expected = measure(model, cfg, progress=False)
    for evaluator in (dict(type="VOCMetric"), None, [dict(type="VOCMetric")]):
        found = measure(model, config(folder, "FCOS", val_evaluator=evaluator), progress=False)
        assert found.metrics == pytest.approx(expected.metrics, nan_ok=True)
        assert found.regret[1]["AP_oracle"] == pytest.approx(expected.regret[1]["AP_oracle"])
    # An image twice, as a ConcatDataset may hold it.
    cfg = config(folder, "FCOS", val_evaluator=dict(type="VOCMetric"))
    leaf = cfg.val_dataloader.dataset.to_dict()
    cfg.val_dataloader.dataset = dict(type="ConcatDataset", datasets=[leaf, leaf])
    twice = measure(model, cfg, progress=False)
    assert twice.num_images == 6
    assert twice.metrics["correct"] == 2 * expected.metrics["correct"]


def test_the_file_of_an_evaluator():
    assert annotation_file(Config(dict()), "val") is None
    many = [dict(type="VOCMetric"), dict(type="CocoMetric", ann_file="b"), dict(ann_file="c")]
    assert annotation_file(Config(dict(test_evaluator=many)), "test") == "b"


def test_options_reach_the_measurement(folder):
    cfg = config(folder, "FCOS")
    model = detector(cfg)
    one = measure(model, cfg, suppressions=[dict(type="nms", iou_threshold=0.1)], progress=False)
    (row,) = one.regret
    assert row["nms"]["iou_threshold"] == 0.1
    model.bbox_head.test_cfg.max_per_img = 1
    assert len(measure(model, cfg, progress=False).detections) == 3
    assert measure(model, cfg, num_worst=0, progress=False).worst == []


def test_what_cannot_be_measured_is_said(folder):
    cfg = config(folder, "FCOS")
    model = detector(cfg)
    model.bbox_head.test_cfg.nms = None
    found = measure(model, cfg, progress=False)
    assert "nothing is suppressed" in found.regret_missing and found.regret == []
    model = detector(cfg)
    shuffled = config(folder, "FCOS")
    shuffled.val_dataloader.sampler.shuffle = True
    with pytest.raises(InputError, match="in order"):
        for _ in range(5):
            measure(model, shuffled, progress=False)
    empty = config(folder, "FCOS")
    (folder / "empty.json").write_text(json.dumps(dict(images=[], annotations=[], categories=[
        dict(id="x", name="disc"), dict(id="y", name="box")])))  # fmt: skip
    # mmengine itself cannot serialise a dataset without images.
    empty.val_dataloader.dataset.update(ann_file="empty.json", serialize_data=False)
    with pytest.raises(InputError, match="the val split has no images"):
        measure(model, empty, progress=False)
    lacking = config(folder, "FCOS")
    lacking.val_dataloader.dataset.metainfo.classes = ("disc", "bar")
    with pytest.raises(InputError, match="no category 'bar'"):
        measure(model, lacking, progress=False)


def test_gaps_are_those_of_each_image_of_a_batch(folder, tmp_path):
    """And not of the batch's first one."""
    shutil.copy(folder / "ann.json", tmp_path)
    for name in "abc":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (64, 96, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.png"), noise)
    rows = []
    for size in (1, 3):
        cfg = config(tmp_path, "FCOS")
        cfg.val_dataloader.batch_size = size
        rows.append(measure(detector(cfg), cfg, progress=False).gaps)
    for alone, together in zip(*rows, strict=True):
        assert together.pop("group") == alone.pop("group")
        assert together == pytest.approx(alone, nan_ok=True, rel=1e-4)


def test_gaps_are_measured_in_pixels_of_the_network_input(folder):
    cfg = config(folder, "FCOS")
    cfg.val_dataloader.dataset.pipeline[1].scale = (192, 128)
    rows = {row["group"]: row for row in measure(detector(cfg), cfg, progress=False).gaps}
    # Size classes are those of the original image: 30 x 30, 40 x 20; 30 x 50 pixels.
    assert (rows["small"]["objects"], rows["medium"]["objects"]) == (2, 1)
