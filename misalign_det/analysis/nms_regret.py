"""What non-maximum suppression throws away: boxes that fitted their object better than the kept."""

import copy
import inspect
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import InputError
from ..evaluation.coco_matching import pairwise_iou
from ..models.post_processing.nms_match import suppressors

# COCO's thresholds: a box that reaches a higher one counts at more of them.
THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass
class SuppressionOutcome:
    """The kept boxes of one image, of D, and what their clusters held.

    Attributes:
        bboxes, scores, labels: of the kept boxes, ``(D, 4)`` xyxy, ``(D,)``, ``(D,)``.
        best_bboxes: of each one's cluster, the box that fits the object of the kept one best,
            ``(D, 4)``; the kept box itself where it found no object.
        iou, best_iou: of both with that object, ``(D,)``; NaN where there is none.
    """

    bboxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    best_bboxes: np.ndarray
    iou: np.ndarray
    best_iou: np.ndarray

    @classmethod
    def join(cls, parts: list["SuppressionOutcome"]) -> "SuppressionOutcome":
        """Many images in one."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def nms_threshold(nms: dict) -> float:
    """IoU threshold of a ``test_cfg.nms``: under mmcv's older name, too, or the type's default.

    Raises:
        InputError: it has none.
    """
    for key in ("iou_threshold", "iou_thr"):
        if nms.get(key) is not None:
            return nms[key]
    kind = nms.get("type", "nms")
    if isinstance(kind, str):  # mmcv looks the name up in the same place
        kind = getattr(import_module("mmcv.ops.nms"), kind, None)
    known = inspect.signature(kind).parameters if callable(kind) else {}
    if "iou_threshold" in known and known["iou_threshold"].default is not inspect.Parameter.empty:
        return known["iou_threshold"].default
    raise InputError(f"test_cfg.nms has no iou_threshold: {dict(nms)}.")


def nms_name(nms: dict) -> str:
    """The type of a ``test_cfg.nms``; mmcv's plain one where it names none."""
    kind = nms.get("type", "nms")
    return kind if isinstance(kind, str) else kind.__name__


def boxes_before_nms(head: nn.Module, outputs: tuple, metas: list[dict]) -> list[InstanceData]:
    """What a dense head would hand to NMS, in pixels of the original image.

    Args:
        head: one of mmdet's.
        outputs: of its ``forward``.
        metas: metainfo of the images.
    """
    predict = partial(head.predict_by_feat, *outputs, batch_img_metas=metas, rescale=True)
    try:
        return predict(with_nms=False)
    except AssertionError:  # PAA refuses; an NMS that suppresses nothing does the same
        cfg = copy.deepcopy(head.test_cfg)
        cfg.update(nms=dict(type="nms", iou_threshold=1.0), max_per_img=10**6)
        return predict(cfg=cfg)


def suppression_outcome(
    bboxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    gt_bboxes: np.ndarray,
    gt_labels: np.ndarray,
    nms: dict,
    max_per_img: int | None = 100,
    min_iou: float = 0.1,
) -> SuppressionOutcome:
    """Suppress the candidates of one image and look at what was suppressed.

    Clusters are those of plain NMS at the same threshold, whatever ``nms`` keeps of each.

    Args:
        bboxes: candidates before NMS, xyxy in pixels of the original image, ``(n, 4)``; those that
            are not finite (an untrained detector's) are left out.
        scores, labels: ``(n,)``.
        gt_bboxes, gt_labels: objects, ``(G, 4)`` and ``(G,)``.
        nms: a ``test_cfg.nms``.
        max_per_img: kept boxes an image; ``None`` keeps all, as mmdet's YOLOXHead does.
        min_iou: least IoU with an object for a kept box to be about it.
    """
    finite = bboxes.isfinite().all(dim=1) & scores.isfinite()
    bboxes, scores, labels = bboxes[finite], scores[finite], labels[finite]
    if len(bboxes) == 0:
        empty = np.zeros(0)
        return SuppressionOutcome(np.zeros((0, 4)), empty, empty, np.zeros((0, 4)), empty, empty)
    dets, keep = batched_nms(bboxes, scores, labels, dict(nms))
    dets, keep = dets[:max_per_img], keep[:max_per_img].cpu().numpy()
    # Where classes suppress one another their boxes share clusters.
    groups = torch.zeros_like(labels) if nms.get("class_agnostic") else labels
    cluster = _clusters(bboxes, scores, groups, nms_threshold(nms))
    boxes, classes = bboxes.cpu().numpy().astype(np.float64), labels.cpu().numpy()
    overlaps = pairwise_iou(boxes, gt_bboxes) * (classes[:, None] == gt_labels[None])
    best, iou, best_iou = _best_of_cluster(overlaps, keep, cluster, min_iou)
    return SuppressionOutcome(
        boxes[keep], dets[:, 4].cpu().numpy(), classes[keep], boxes[best], iou, best_iou
    )


def _clusters(bboxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> np.ndarray:
    """Kept box of each candidate's cluster under plain NMS, class by class, ``(n,)``."""
    shift = labels.to(bboxes) * (bboxes.max() - bboxes.min() + 1)
    order = scores.sort(descending=True)[1]
    boxes = (bboxes + shift[:, None])[order].float().cpu().numpy()
    order = order.cpu().numpy()
    cluster = np.empty(len(bboxes), np.int64)
    cluster[order] = order[suppressors(boxes, iou_threshold)]
    return cluster


def _best_of_cluster(overlaps, keep, cluster, min_iou):
    """Of each kept box's cluster the candidate that fits the kept box's object best."""
    nothing = np.full(len(keep), np.nan)
    if overlaps.shape[1] == 0 or len(keep) == 0:
        return keep, nothing, nothing
    gts = overlaps[keep].argmax(axis=1)
    iou = overlaps[keep, gts]
    members = cluster[None] == cluster[keep][:, None]  # (D, n)
    fits = np.where(members, overlaps[:, gts].T, -1.0)
    best = fits.argmax(axis=1)
    about = iou >= min_iou
    return (
        np.where(about, best, keep),
        np.where(about, iou, np.nan),
        np.where(about, fits[np.arange(len(keep)), best], np.nan),
    )


def summarise_regret(outcome: SuppressionOutcome) -> dict[str, float]:
    """Figures over the boxes that found an object.

    Returns:
        ``boxes`` that found one; ``lost``: how many of them suppressed a box that reaches a higher
        one of COCO's IoU thresholds; ``iou_lost``: mean IoU to the best box of the cluster.
    """
    about = ~np.isnan(outcome.iou)
    reached, possible = (
        (value[about, None] >= THRESHOLDS).sum(axis=1) for value in (outcome.iou, outcome.best_iou)
    )
    difference = outcome.best_iou[about] - outcome.iou[about]
    return dict(
        boxes=int(about.sum()),
        lost=int((possible > reached).sum()),
        iou_lost=float(difference.mean()) if about.any() else float("nan"),
    )
