"""Small heads, features and ground truths that the tests of the dense heads share."""

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

STRIDES = [8, 16, 32, 64, 128]


def make_head(kind="TripleHead", num_classes=3, assigner=None, **kwargs):
    """With JLAAssigner by default, with none for ``assigner=False``."""
    torch.manual_seed(0)
    train_cfg = dict(assigner={"type": "JLAAssigner", **(assigner or {})})
    if assigner is False:
        train_cfg = None
    head = MODELS.build(
        dict(
            type=kind,
            num_classes=num_classes,
            in_channels=16,
            feat_channels=kwargs.pop("feat_channels", 16),
            stacked_convs=kwargs.pop("stacked_convs", 2),
            strides=STRIDES,
            norm_cfg=dict(type="GN", num_groups=4),
            train_cfg=train_cfg,
            test_cfg=ConfigDict(
                nms_pre=100,
                score_thr=0.0,
                min_bbox_size=0,
                nms=dict(type="nms", iou_threshold=0.6),
                max_per_img=20,
            ),
            **kwargs,
        )
    )
    head.init_weights()
    return head


def features(num=2, size=128, dtype=torch.float32):
    torch.manual_seed(1)
    return [
        torch.randn(num, 16, max(size // s, 1), max(size // s, 1), dtype=dtype) for s in STRIDES
    ]


def instances(*boxes, labels=None):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(bboxes)) if labels is None else torch.tensor(labels)
    return InstanceData(bboxes=bboxes, labels=labels.long())


ONE = instances((10, 20, 70, 90), labels=[1])
CROWD = instances(
    *[(i, i, i + 40, i + 50) for i in range(0, 60, 4)], labels=[i % 3 for i in range(15)]
)
METAS = [dict(img_shape=(128, 128), scale_factor=(1, 1))] * 2


def losses_of(head, gts, feats=None):
    feats = features(len(gts)) if feats is None else feats
    losses = head.loss_by_feat(*head(feats), gts, METAS[: len(gts)])
    return losses, sum(losses.values())
