"""Detections beside the ground truth of their image: whom each box overlaps, and by how much."""

from dataclasses import dataclass, fields

import numpy as np
from pycocotools import mask as coco_mask


@dataclass
class MatchedDetections:
    """D detections, of one image or of many.

    Attributes:
        image_ids: integers or strings, ``(D,)`` of objects: a plain array would turn a mixture
            into strings.
        labels: class indices, ``(D,)``.
        scores: ``(D,)``.
        overlaps: IoU with the best object of the same class, 0 where there is none, ``(D,)``.
        true_positive: the first of the detections, in order of score, that claim their object at
            an IoU of at least the threshold (COCO's greedy matching), ``(D,)`` bool.
        matched_overlaps: IoU with the claimed object, 0 for the others, ``(D,)``.
        ignored: unmatched, and mostly inside a crowd region of the class, ``(D,)`` bool.
    """

    image_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    overlaps: np.ndarray
    true_positive: np.ndarray
    matched_overlaps: np.ndarray
    ignored: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index) -> "MatchedDetections":
        return MatchedDetections(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, parts: list["MatchedDetections"]) -> "MatchedDetections":
        """Many images in one; none at all gives no detections."""
        nothing = match_image(0, *_no_boxes(), *_no_boxes()[::2], iou_threshold=0.5)
        parts = parts or [nothing]
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def match_image(
    image_id,
    bboxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gt_bboxes: np.ndarray,
    gt_labels: np.ndarray,
    gt_crowd: np.ndarray | None = None,
    iou_threshold: float = 0.5,
) -> MatchedDetections:
    """Match the detections of one image as COCO's evaluation does at one threshold.

    In descending order of score, each detection claims the object of its class that it overlaps
    most among those not claimed yet, if the IoU reaches the threshold.

    Args:
        image_id: kept in the result.
        bboxes: xyxy in pixels, ``(D, 4)``.
        scores, labels: ``(D,)``.
        gt_bboxes: xyxy in pixels, ``(G, 4)``.
        gt_labels: ``(G,)``.
        gt_crowd: regions of many objects, ``(G,)`` bool.
        iou_threshold: least IoU of a match.
    """
    crowd = np.zeros(len(gt_labels), bool) if gt_crowd is None else gt_crowd.astype(bool)
    iou = pairwise_iou(bboxes, gt_bboxes, crowd)
    iou = np.where(labels[:, None] == gt_labels[None], iou, 0.0)
    objects = iou[:, ~crowd]
    true_positive, matched = _claim(objects, scores, iou_threshold)
    in_crowd = iou[:, crowd].max(axis=1, initial=0.0) >= iou_threshold
    return MatchedDetections(
        image_ids=np.full(len(scores), image_id, dtype=object),
        labels=labels.astype(np.int64),
        scores=scores.astype(np.float64),
        overlaps=objects.max(axis=1, initial=0.0),
        true_positive=true_positive,
        matched_overlaps=matched,
        ignored=in_crowd & ~true_positive,
    )


def _claim(iou: np.ndarray, scores: np.ndarray, threshold: float):
    """COCO's greedy matching on ``(D, G)``: who is a true positive, and at which IoU."""
    claimed = np.zeros(len(scores), bool)
    matched = np.zeros(len(scores))
    free = np.ones(iou.shape[1], bool)
    reaches = (iou >= threshold).any(axis=1)
    for detection in np.argsort(-scores, kind="stable"):
        if not reaches[detection]:
            continue
        row = np.where(free, iou[detection], -1.0)
        best = row.argmax()
        if row[best] >= threshold:
            claimed[detection], matched[detection], free[best] = True, row[best], False
    return claimed, matched


def pairwise_iou(
    bboxes: np.ndarray, gt_bboxes: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """pycocotools' IoU, ``(D, G)``; for a crowd region, the share of the detection inside it."""
    if len(bboxes) == 0 or len(gt_bboxes) == 0:
        return np.zeros((len(bboxes), len(gt_bboxes)))
    flags = [0] * len(gt_bboxes) if crowd is None else crowd.astype(np.uint8).tolist()
    return coco_mask.iou(_xywh(bboxes), _xywh(gt_bboxes), flags).reshape(len(bboxes), -1)


def _xywh(bboxes: np.ndarray) -> np.ndarray:
    bboxes = np.asarray(bboxes, np.float64).reshape(-1, 4)
    return np.concatenate([bboxes[:, :2], bboxes[:, 2:] - bboxes[:, :2]], axis=1)


def _no_boxes():
    return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
