"""COCO's greedy matching of the detections of an image with its ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import InputError
from .coco_ap import is_crowd

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


class ImageGroundTruth(NamedTuple):
    """The annotated objects of one image.

    Attributes:
        bboxes: xyxy in pixels of the original image, ``(G, 4)``.
        labels: class indices, ``(G,)``.
        crowd: which of them are crowd regions, ``(G,)`` bool.
    """

    bboxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


def image_ground_truth(
    coco: COCO, image_id: int | str, categories: Sequence[int | str]
) -> ImageGroundTruth:
    """The objects of one image in the annotations.

    Args:
        coco: annotations, from :func:`~.coco_ap.load_annotations`.
        image_id: of the image in the annotations.
        categories: category id of each class; objects of other categories are left out.

    Raises:
        InputError: the annotations have no such image.
    """
    if image_id not in coco.imgs:
        raise InputError(
            f"image {image_id!r} of the detections is not in the annotation file. Take the "
            "file of the split that was tested."
        )
    labels = {category: label for label, category in enumerate(categories)}
    found = [a for a in coco.imgToAnns[image_id] if a["category_id"] in labels]
    bboxes = np.array([a["bbox"] for a in found], np.float64).reshape(-1, 4)
    bboxes[:, 2:] += bboxes[:, :2]
    return ImageGroundTruth(
        bboxes,
        np.array([labels[a["category_id"]] for a in found], np.int64),
        np.array([is_crowd(a) for a in found], bool),
    )


@dataclass
class MatchedDetections:
    """D detections of one image or of several, matched at one IoU threshold.

    Attributes:
        image_ids: integers or strings, ``(D,)`` of dtype object: a NumPy array of a mixture would
            hold strings only.
        labels: class indices, ``(D,)``.
        scores: ``(D,)``.
        overlaps: IoU with the best GT of the same class, 0 where there is none, ``(D,)``.
        true_positive: whether the detection was matched with a GT, ``(D,)`` bool.
        matched_overlaps: IoU with the matched GT, 0 without one, ``(D,)``.
        ignored: not matched, and inside a crowd region of the class by at least the threshold,
            ``(D,)`` bool.
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

    def __getitem__(self, index: slice | np.ndarray) -> MatchedDetections:
        return MatchedDetections(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[MatchedDetections]) -> MatchedDetections:
        """The detections of several images, or none, in one."""
        if not parts:
            dtypes = (object, np.int64, np.float64, np.float64, bool, np.float64, bool)
            return cls(*(np.zeros(0, dtype) for dtype in dtypes))
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def match_image(
    image_id: int | str,
    bboxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gts: ImageGroundTruth,
    iou_thresholds: Sequence[float] = (0.5,),
) -> list[MatchedDetections]:
    """Match the detections of one image as COCO's evaluation does, at one or several thresholds.

    In descending order of score, each detection is matched with the GT of its class that it
    overlaps most among those not matched yet, if their IoU reaches the threshold. The IoUs are
    computed once for all thresholds.

    Args:
        image_id: kept in the result.
        bboxes: xyxy in pixels of the original image, ``(D, 4)``.
        scores, labels: ``(D,)``.
        gts: of the image.
        iou_thresholds: least IoU of a match.

    Returns:
        One result per threshold.
    """
    iou = pairwise_iou(bboxes, gts.bboxes, gts.crowd)
    iou = np.where(labels[:, None] == gts.labels[None], iou, 0.0)
    with_gts, with_crowds = iou[:, ~gts.crowd], iou[:, gts.crowd].max(axis=1, initial=0.0)
    order = np.argsort(-scores, kind="stable")
    results = []
    for threshold in iou_thresholds:
        true_positive, matched_overlaps = _greedy_match(with_gts, order, threshold)
        results.append(
            MatchedDetections(
                image_ids=np.full(len(scores), image_id, dtype=object),
                labels=labels.astype(np.int64),
                scores=scores.astype(np.float64),
                overlaps=with_gts.max(axis=1, initial=0.0),
                true_positive=true_positive,
                matched_overlaps=matched_overlaps,
                ignored=(with_crowds >= threshold) & ~true_positive,
            )
        )
    return results


def _greedy_match(
    iou: np.ndarray, order: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections are matched, and their IoU with their match, 0 for the others.

    Args:
        iou: ``(D, G)``.
        order: detections by descending score, ``(D,)``.
        threshold: least IoU of a match.
    """
    true_positive = np.zeros(len(iou), bool)
    overlaps = np.zeros(len(iou))
    free = np.ones(iou.shape[1], bool)
    reaches = np.asarray((iou >= threshold).any(axis=1))
    for detection in order:
        if not reaches[detection]:
            continue
        row = np.where(free, iou[detection], -1.0)
        best = row.argmax()
        if row[best] >= threshold:
            true_positive[detection], overlaps[detection], free[best] = True, row[best], False
    return true_positive, overlaps


def pairwise_iou(
    bboxes: np.ndarray, gt_bboxes: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """pycocotools' IoU.

    Args:
        bboxes: xyxy, ``(D, 4)``.
        gt_bboxes: xyxy, ``(G, 4)``.
        crowd: which GTs are crowd regions, ``(G,)`` bool; none by default. Theirs is the share of
            the detection that lies inside.

    Returns:
        ``(D, G)``.
    """
    if len(bboxes) == 0 or len(gt_bboxes) == 0:
        return np.zeros((len(bboxes), len(gt_bboxes)))
    flags = [0] * len(gt_bboxes) if crowd is None else crowd.astype(np.uint8).tolist()
    return coco_mask.iou(_xywh(bboxes), _xywh(gt_bboxes), flags).reshape(len(bboxes), -1)


def _xywh(bboxes: np.ndarray) -> np.ndarray:
    bboxes = np.asarray(bboxes, np.float64).reshape(-1, 4)
    return np.concatenate([bboxes[:, :2], bboxes[:, 2:] - bboxes[:, :2]], axis=1)
