"""Small untrained detectors with a config and a checkpoint on disk, for the tests of tools."""

import importlib.util
import json

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

import misalign_det  # noqa: F401
from helpers.paths import ROOT

COMMON = "num_classes=6, in_channels=8, feat_channels=8, stacked_convs=1"
POINTS = f"{COMMON}, strides=[8, 16, 32, 64, 128], norm_cfg=dict(type='GN', num_groups=2)"
CODER = "bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1] * 4)"
SCALES = "scales_per_octave={}, octave_base_scale=4, strides=[8, 16, 32, 64, 128]"
ANCHORS = "anchor_generator=dict(type='AnchorGenerator', ratios={}, " + SCALES + ")"
FOCAL = "loss_cls=dict(type='FocalLoss', use_sigmoid=True)"
MAX_IOU = "dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)"
REST = "allowed_border=-1, pos_weight=-1, debug=False"
HEADS = {
    "RFAHead": (f"{POINTS}, rfa_position='first'", "assigner=dict(type='SpatialAlignAssigner')"),
    "TripleHead": (
        POINTS.replace("stacked_convs=1", "stacked_convs=2"),
        "assigner=dict(type='JLAAssigner')",
    ),
    "FCOSHead": (f"{POINTS}, norm_on_bbox=True, center_sampling=True", "assigner=None"),
    "RetinaHead": (
        f"{COMMON}, {CODER}, {FOCAL}, {ANCHORS.format('[0.5, 1.0, 2.0]', 3)}",
        f"assigner={MAX_IOU}, sampler=dict(type='PseudoSampler'), {REST}",
    ),
    "ATSSHead": (
        f"{COMMON}, {CODER}, {FOCAL}, {ANCHORS.format('[1.0]', 1)}, "
        "norm_cfg=dict(type='GN', num_groups=2), "
        "loss_bbox=dict(type='GIoULoss'), "
        "loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True)",
        f"assigner=dict(type='ATSSAssigner', topk=9), {REST}",
    ),
    "GFLHead": (
        f"{COMMON}, {ANCHORS.format('[1.0]', 1).replace('base_scale=4', 'base_scale=8')}, "
        "norm_cfg=dict(type='GN', num_groups=2), reg_max=7, loss_bbox=dict(type='GIoULoss'), "
        "loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0)",
        f"assigner=dict(type='ATSSAssigner', topk=9), {REST}",
    ),
}
CONFIG = """
_base_ = ['{root}/configs/_base_/datasets/shapes_detection.py',
          '{root}/configs/_base_/default_runtime.py']
model = dict(
    type='FCOS', data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, base_channels=8, style='pytorch'),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1,
              add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(type='{head}', {arguments}),
    train_cfg=dict({train}),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr={threshold}, max_per_img={most},
                  nms=dict(type='nms', iou_threshold=0.6)))
"""


def tool(folder, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_detector(folder, head, threshold=0.0, most=5, spread=None):
    """Write HEAD.py and HEAD.pth; give their paths.

    Args:
        head: one of HEADS.
        threshold, most: score_thr and max_per_img.
        spread: standard deviation of the weights of the class output, so that scores differ.
    """
    register_all_modules()
    arguments, train = HEADS[head]
    config, checkpoint = folder / f"{head}.py", folder / f"{head}.pth"
    config.write_text(
        CONFIG.format(root=ROOT, head=head, arguments=arguments, train=train,
                      threshold=threshold, most=most)
    )  # fmt: skip
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if head == "TripleHead":  # its refinement starts as the identity
        torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.01)
    if spread:
        names = ("conv_cls", "gfl_cls", "atss_cls", "retina_cls")
        layer = next(getattr(model.bbox_head, n) for n in names if hasattr(model.bbox_head, n))
        torch.nn.init.normal_(layer.weight, std=spread)
    meta = {"dataset_meta": cfg.metainfo.to_dict()}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, checkpoint)
    return [str(config), str(checkpoint)]


def image_with_objects(data):
    """Name of the validation image with most objects, and their number."""
    content = json.loads((data / "annotations/instances_val.json").read_text())
    counts = {image["id"]: 0 for image in content["images"]}
    for annotation in content["annotations"]:
        counts[annotation["image_id"]] += 1
    most = max(counts, key=counts.get)
    name = next(image["file_name"] for image in content["images"] if image["id"] == most)
    return name, counts[most]
