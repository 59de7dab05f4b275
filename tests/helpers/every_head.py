"""Every dense head of the package, small, with features and images for it."""

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

STRIDES = [8, 16, 32, 64, 128]
COMMON = dict(num_classes=4, in_channels=16, feat_channels=16, stacked_convs=2)
GN = dict(type="GN", num_groups=4)
ANCHORS = dict(anchor_generator=dict(
    type="AnchorGenerator", ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
    strides=STRIDES))  # fmt: skip
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25)
DC_FOCAL = dict(loss_cls=dict(type="DCLoss", loss=FOCAL))
DC_QUALITY = dict(loss_cls=dict(
    type="DCLoss", loss=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0)))  # fmt: skip
JLA = dict(assigner=dict(type="JLAAssigner"))
ALIGN = dict(assigner=dict(type="SpatialAlignAssigner"))
MAX_IOU = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
REST = dict(sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False)
IAC = dict(assigner=dict(type="IACAssigner", **MAX_IOU), **REST)
IAC_ATSS = dict(assigner=dict(type="IACATSSAssigner", topk=9), **REST)
HEADS = {
    "TripleHead": (dict(strides=STRIDES, norm_cfg=GN), JLA),
    "LossAwareFCOSHead": (dict(strides=STRIDES, norm_cfg=GN), JLA),
    "RFAHead": (dict(strides=STRIDES, norm_cfg=GN), ALIGN),
    "RFAFCOSHead": (dict(strides=STRIDES, norm_cfg=GN), None),
    "FCOSHeadWithoutCenterness": (dict(strides=STRIDES, norm_cfg=GN), None),
    "DCRetinaHead": (dict(**DC_FOCAL, **ANCHORS), IAC),
    "DCATSSHead": (
        dict(norm_cfg=GN, loss_bbox=dict(type="GIoULoss"), **DC_FOCAL, **ANCHORS),
        IAC_ATSS,
    ),
    "DCFCOSHead": (dict(strides=STRIDES, norm_cfg=GN, **DC_FOCAL), None),
    "DCGFLHead": (
        dict(norm_cfg=GN, reg_max=7, loss_bbox=dict(type="GIoULoss"), **DC_QUALITY, **ANCHORS),
        IAC_ATSS,
    ),
}
TEST_CFG = dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, max_per_img=10,
                nms=dict(type="nms", iou_threshold=0.6))  # fmt: skip


def make_head(name, **changes):
    options, train_cfg = HEADS[name]
    torch.manual_seed(0)
    config = dict(type=name, **COMMON, **options, train_cfg=train_cfg, test_cfg=TEST_CFG)
    head = MODELS.build(ConfigDict({**config, **changes}))
    head.init_weights()
    return head


def features(device, num=1):
    torch.manual_seed(1)
    return tuple(torch.randn(num, 16, 256 // s, 256 // s, device=device) for s in STRIDES)


def samples(*boxes, device="cpu"):
    """One data sample an image, each from a list of (x0, y0, x1, y1, label)."""
    out = []
    for rows in boxes:
        rows = torch.tensor(rows, dtype=torch.float32, device=device).reshape(-1, 5)
        sample = DetDataSample(metainfo=dict(
            img_shape=(256, 256), pad_shape=(256, 256), ori_shape=(256, 256), scale_factor=(1, 1),
            batch_input_shape=(256, 256)))  # fmt: skip
        sample.gt_instances = InstanceData(bboxes=rows[:, :4], labels=rows[:, 4].long())
        sample.ignored_instances = InstanceData(bboxes=rows[:0, :4])
        out.append(sample)
    return out


def totals(losses):
    return {k: sum(v) if isinstance(v, list) else v for k, v in losses.items() if "loss" in k}
