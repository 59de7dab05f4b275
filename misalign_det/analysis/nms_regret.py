"""NMS regret: what AP a detector loses because NMS keeps boxes that fit worse than others.

NMS keeps the box with the highest score of each cluster of overlapping boxes. The *oracle* keeps
the box of the cluster that fits best, with the same score. NMS regret is the oracle's AP minus the
AP of the kept boxes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.structures import InstanceData
from torch import Tensor

from ..errors import InputError
from ..evaluation.coco_ap import average_precision, category_ids
from ..evaluation.coco_matching import pairwise_iou
from ..models.post_processing.nms_match import suppressors

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see evaluation/coco_ap.py
    from mmdet.datasets.api_wrappers import COCO

# COCO's thresholds: a box that reaches a higher one counts at more of them.
THRESHOLDS = np.linspace(0.5, 0.95, 10)


class NMSRegret:
    """Accumulates the boxes of a split before NMS and computes what NMS loses.

    The kept boxes count as NMS leaves them, also where ``test_cfg.box_voting`` moves them later.

    Args:
        nms: a ``test_cfg.nms``.
        coco: annotations, from :func:`~misalign_det.evaluation.coco_ap.load_annotations`.
        classes: the detector's classes in the order of its labels; a single one may be a string.
        max_per_img: kept boxes per image; ``None`` keeps all, as mmdet's YOLOXHead does.

    Raises:
        InputError: the annotations lack one of the classes.
    """

    def __init__(
        self,
        nms: Mapping[str, Any],
        coco: COCO,
        classes: str | Sequence[str],
        max_per_img: int | None = 100,
    ) -> None:
        self.nms = nms
        self.coco = coco
        self.categories = category_ids(coco, classes)
        self.max_per_img = max_per_img
        self._image_ids: list[int | str] = []
        self._outcomes: list[SuppressionOutcome] = []

    def update(
        self, image_id: int | str, candidates: InstanceData, gt_instances: InstanceData
    ) -> SuppressionOutcome:
        """Suppress the boxes of one image.

        Args:
            image_id: of the image in the annotations.
            candidates: from :func:`boxes_before_nms`.
            gt_instances: ``bboxes`` ``(G, 4)``, xyxy in pixels of the original image, and
                ``labels`` ``(G,)``, on the CPU.

        Returns:
            Of this image.
        """
        outcome = suppression_outcome(
            candidates.bboxes,
            candidates.scores,
            candidates.labels,
            gt_instances.bboxes.numpy().astype(np.float64),
            gt_instances.labels.numpy(),
            self.nms,
            self.max_per_img,
        )
        self._outcomes.append(outcome)
        self._image_ids.append(image_id)
        return outcome

    def compute(self) -> dict[str, Any]:
        """The figures over all images seen.

        Returns:
            ``nms`` and its ``name``; ``AP`` of the kept boxes and ``AP_oracle``, over IoU 0.5 to
            0.95; ``boxes``, ``lost`` and ``iou_lost`` of :func:`summarise_regret`.

        Raises:
            InputError: an image that the annotations lack, or a label beyond the classes.
        """
        outcome = SuppressionOutcome.join(self._outcomes)
        images = [
            image
            for image, own in zip(self._image_ids, self._outcomes)
            for _ in range(len(own.scores))
        ]
        kept, best = (
            average_precision(
                self.coco, images, boxes, outcome.scores, outcome.labels, self.categories
            )
            for boxes in (outcome.bboxes, outcome.best_bboxes)
        )
        row = dict(nms=self.nms, name=nms_name(self.nms), AP=_mean(kept), AP_oracle=_mean(best))
        return dict(row, **summarise_regret(outcome))

    def detections(self, oracle: bool = False) -> list[dict[str, Any]]:
        """The kept boxes, or the oracle's, of all images seen.

        Args:
            oracle: whether the best box of each cluster stands for the kept one.

        Returns:
            As :func:`~misalign_det.evaluation.detections_file.load_detections` gives them.
        """
        return [
            dict(
                img_id=image,
                pred_instances=dict(
                    bboxes=own.best_bboxes if oracle else own.bboxes,
                    scores=own.scores,
                    labels=own.labels,
                ),
            )
            for image, own in zip(self._image_ids, self._outcomes)
        ]


@dataclass
class SuppressionOutcome:
    """D kept boxes of one image or of several, and the best box of each one's cluster.

    Attributes:
        bboxes, scores, labels: of the kept boxes, ``(D, 4)`` xyxy, ``(D,)``, ``(D,)``.
        best_bboxes: the box of the cluster with the largest IoU with the kept box's GT, ``(D, 4)``
            xyxy; the kept box itself where that has no GT.
        iou, best_iou: IoU of both with that GT, ``(D,)``; NaN where there is none.
    """

    bboxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    best_bboxes: np.ndarray
    iou: np.ndarray
    best_iou: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[SuppressionOutcome]) -> SuppressionOutcome:
        """The boxes of several images in one."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def nms_threshold(nms: Mapping[str, Any]) -> float:
    """IoU threshold of a ``test_cfg.nms``.

    It stands under ``iou_threshold`` or mmcv's older ``iou_thr``, or is the default of the type.

    Raises:
        InputError: it has none.
    """
    for key in ("iou_threshold", "iou_thr"):
        if nms.get(key) is not None:
            return nms[key]
    kind = nms.get("type", "nms")
    if isinstance(kind, str):  # mmcv finds the function by its name in the same module
        kind = getattr(import_module("mmcv.ops.nms"), kind, None)
    known = inspect.signature(kind).parameters if callable(kind) else {}
    if "iou_threshold" in known and known["iou_threshold"].default is not inspect.Parameter.empty:
        return known["iou_threshold"].default
    raise InputError(f"test_cfg.nms has no iou_threshold: {dict(nms)}.")


def nms_name(nms: Mapping[str, Any]) -> str:
    """The type of a ``test_cfg.nms``; ``'nms'``, mmcv's default, where it has none."""
    kind = nms.get("type", "nms")
    return kind if isinstance(kind, str) else kind.__name__


def balanced_nms(nms: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """CLBalancedNMS in the place of another ``test_cfg.nms``: what else that says stays.

    Args:
        nms: the other one.
        **options: of CLBalancedNMS.

    Raises:
        InputError: ``nms`` has no IoU threshold.
    """
    kept = {key: nms[key] for key in ("class_agnostic", "split_thr", "max_num") if key in nms}
    return dict(type="CLBalancedNMS", iou_threshold=nms_threshold(nms), **kept, **options)


def boxes_before_nms(
    head: BaseDenseHead, outputs: Sequence[Any], metas: list[dict]
) -> list[InstanceData]:
    """The boxes that a dense head passes to NMS.

    Args:
        head: one of mmdet's dense heads, in eval mode.
        outputs: of its ``forward``.
        metas: metainfo of the images.

    Returns:
        Per image ``bboxes`` ``(n, 4)``, xyxy in pixels of the original image, ``scores`` and
        ``labels`` ``(n,)``.
    """
    predict = partial(head.predict_by_feat, *outputs, batch_img_metas=metas, rescale=True)
    try:
        return predict(with_nms=False)
    except AssertionError:  # PAA refuses; an NMS that suppresses nothing does the same
        cfg = copy.deepcopy(head.test_cfg)
        cfg.update(nms=dict(type="nms", iou_threshold=1.0), max_per_img=10**6, box_voting=None)
        voting, head.with_score_voting = head.with_score_voting, False  # it asks no config
        try:
            return predict(cfg=cfg)
        finally:
            head.with_score_voting = voting


def suppression_outcome(
    bboxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    gt_bboxes: np.ndarray,
    gt_labels: np.ndarray,
    nms: Mapping[str, Any],
    max_per_img: int | None = 100,
    min_iou: float = 0.1,
) -> SuppressionOutcome:
    """Run NMS on the boxes of one image and find the best box of each kept box's cluster.

    Clusters are those of plain NMS at the threshold of ``nms``, whichever box it keeps of each. The
    GT of a kept box is the one of its class that it overlaps most.

    Args:
        bboxes: boxes before NMS, xyxy in pixels of the original image, ``(n, 4)``; those that are
            not finite (of an untrained detector) are left out.
        scores, labels: ``(n,)``.
        gt_bboxes, gt_labels: ``(G, 4)``, xyxy in the same pixels, and ``(G,)``.
        nms: a ``test_cfg.nms``.
        max_per_img: kept boxes per image; ``None`` keeps all, as mmdet's YOLOXHead does.
        min_iou: a kept box with a smaller IoU has no GT.

    Raises:
        InputError: ``nms`` has no IoU threshold.
    """
    finite = bboxes.isfinite().all(dim=1) & scores.isfinite()
    bboxes, scores, labels = bboxes[finite], scores[finite], labels[finite]
    if len(bboxes) == 0:
        empty = np.zeros(0)
        return SuppressionOutcome(np.zeros((0, 4)), empty, empty, np.zeros((0, 4)), empty, empty)
    dets, keep = batched_nms(bboxes, scores, labels, dict(nms))
    dets, keep = dets[:max_per_img], keep[:max_per_img].cpu().numpy()
    # With class_agnostic, boxes of different classes are in one cluster.
    groups = torch.zeros_like(labels) if nms.get("class_agnostic") else labels
    cluster = _clusters(bboxes, scores, groups, nms_threshold(nms))
    boxes, classes = bboxes.cpu().numpy().astype(np.float64), labels.cpu().numpy()
    overlaps = pairwise_iou(boxes, gt_bboxes) * (classes[:, None] == gt_labels[None])
    best, iou, best_iou = _best_of_cluster(overlaps, keep, cluster, min_iou)
    return SuppressionOutcome(
        boxes[keep], dets[:, 4].cpu().numpy(), classes[keep], boxes[best], iou, best_iou
    )


def _clusters(bboxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> np.ndarray:
    """Index of the box that plain NMS per class keeps of each box's cluster, ``(n,)``."""
    shift = labels.to(bboxes) * (bboxes.max() - bboxes.min() + 1)
    order = scores.sort(descending=True)[1]
    boxes = (bboxes + shift[:, None])[order].float().cpu().numpy()
    indices = order.cpu().numpy()
    cluster = np.empty(len(bboxes), np.int64)
    cluster[indices] = indices[suppressors(boxes, iou_threshold)]
    return cluster


def _best_of_cluster(
    overlaps: np.ndarray, keep: np.ndarray, cluster: np.ndarray, min_iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best box of each kept box's cluster.

    Args:
        overlaps: IoU with the GTs, 0 with those of other classes, ``(n, G)``.
        keep: indices of the kept boxes, ``(D,)``.
        cluster: from :func:`_clusters`, ``(n,)``.
        min_iou: a kept box with a smaller IoU has no GT.

    Returns:
        Index of the best box, IoU of the kept and of the best box with the GT, ``(D,)`` each.
    """
    nothing = np.full(len(keep), np.nan)
    if overlaps.shape[1] == 0 or len(keep) == 0:
        return keep, nothing, nothing
    gts = overlaps[keep].argmax(axis=1)
    iou = overlaps[keep, gts]
    members = cluster[None] == cluster[keep][:, None]  # (D, n)
    fits = np.where(members, overlaps[:, gts].T, -1.0)
    best = fits.argmax(axis=1)
    has_gt = iou >= min_iou
    return (
        np.where(has_gt, best, keep),
        np.where(has_gt, iou, np.nan),
        np.where(has_gt, fits[np.arange(len(keep)), best], np.nan),
    )


def summarise_regret(outcome: SuppressionOutcome) -> dict[str, float]:
    """Counts of the kept boxes that have a GT.

    Returns:
        ``boxes``: their number; ``lost``: how many of them suppressed a box that reaches a higher
        one of COCO's IoU thresholds; ``iou_lost``: mean of the best box's IoU minus their own, NaN
        without a box.
    """
    has_gt = ~np.isnan(outcome.iou)
    reached, possible = (
        (value[has_gt, None] >= THRESHOLDS).sum(axis=1) for value in (outcome.iou, outcome.best_iou)
    )
    difference = outcome.best_iou[has_gt] - outcome.iou[has_gt]
    return dict(
        boxes=int(has_gt.sum()),
        lost=int((possible > reached).sum()),
        iou_lost=float(difference.mean()) if has_gt.any() else float("nan"),
    )


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
