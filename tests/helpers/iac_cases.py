"""Boxes, anchors and probabilities for tests of the IAC assigners."""

import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

import misalign_det  # noqa: F401

COMMON = dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)


def make(**kwargs):
    return TASK_UTILS.build(dict(type="IACAssigner", **{**COMMON, **kwargs}))


def boxes(num, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 80
    return torch.cat([corner, corner + torch.rand(num, 2, generator=generator) * 60], dim=1)


def instances(bboxes, labels=None):
    bboxes = torch.as_tensor(bboxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(bboxes)) if labels is None else torch.as_tensor(labels)
    return InstanceData(bboxes=bboxes, labels=labels.long())


def predictions(priors, scores=None):
    priors = torch.as_tensor(priors, dtype=torch.float32).reshape(-1, 4)
    pred = InstanceData(priors=priors)
    if scores is not None:
        pred.scores = torch.as_tensor(scores, dtype=torch.float32)
    return pred


# One GT; anchors of IoU 1, 0.25 (inside it), 0.45 (ignored by MaxIoU) and 0.
GT = [[0, 0, 20, 20]]
ANCHORS = [[0, 0, 20, 20], [0, 0, 10, 10], [0, 0, 20, 9], [50, 50, 60, 60]]
