"""Small DC heads on two levels, features and ground truths that their tests share."""

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

FOCAL = dict(type="FocalLoss", use_sigmoid=True)
QUALITY = dict(type="QualityFocalLoss", use_sigmoid=True)
SOFTMAX = dict(type="CrossEntropyLoss", use_sigmoid=False)
STRIDES = [8, 16]
# One square anchor per location, centred on multiples of the stride, four strides wide.
ANCHORS = dict(
    type="AnchorGenerator", ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=STRIDES
)
HEADS = {
    "DCRetinaHead": dict(anchor_generator=ANCHORS),
    "DCATSSHead": dict(anchor_generator=ANCHORS, norm_cfg=None, loss_bbox=dict(type="GIoULoss")),
    "DCGFLHead": dict(
        anchor_generator=ANCHORS, norm_cfg=None, reg_max=7, loss_bbox=dict(type="GIoULoss")
    ),
    "DCFCOSHead": dict(strides=STRIDES, norm_cfg=None, regress_ranges=((-1, 64), (64, 1e8))),
}
MAX_IOU = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
TRAIN = dict(
    sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False
)  # fmt: skip
METAS = [dict(img_shape=(128, 128), pad_shape=(128, 128))] * 2


def make(kind, **options):
    assigner = dict(type="MaxIoUAssigner", **MAX_IOU)
    if kind.endswith(("ATSSHead", "GFLHead")):
        assigner = dict(type="ATSSAssigner", topk=9)
    train_cfg = dict(TRAIN, **{"assigner": assigner, **options.pop("train_cfg", {})})
    known = HEADS[kind if kind in HEADS else f"DC{kind}"]
    torch.manual_seed(0)
    head = MODELS.build(
        ConfigDict(type=kind, num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1,
                   **{**known, "train_cfg": train_cfg, **options})
    )  # fmt: skip
    head.init_weights()
    return head


def wrapped(kind):
    return QUALITY if "GFL" in kind else FOCAL


def with_dc(kind, **options):
    return make(kind, loss_cls=dict(type="DCLoss", loss=wrapped(kind)), **options)


def instances(*boxes, labels=None):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = range(len(bboxes)) if labels is None else labels
    return InstanceData(bboxes=bboxes, labels=torch.tensor(list(labels), dtype=torch.long))


def features():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, 8, 128 // s, 128 // s, generator=generator) for s in STRIDES)


def total(losses):
    return {k: sum(v) if isinstance(v, (list, tuple)) else v for k, v in losses.items()}


SCENE = [instances((20, 30, 60, 70), (50, 60, 120, 126)), instances((44, 50, 84, 78))]
