"""How well scores tell good boxes from bad ones: correlation, counts, calibration, AP by IoU.

:class:`ScoreAlignment` accumulates the detections of a split and computes all of it; the functions
take matched detections of one class or of several and return plain numbers, NaN where there is
nothing to measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.logging import MMLogger
from scipy import stats

from ..utils import class_names
from .coco_ap import average_precision, best_of_class, category_ids
from .coco_matching import MatchedDetections, image_ground_truth, match_image

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


@dataclass
class AlignmentResult:
    """What :class:`ScoreAlignment` computes.

    Attributes:
        overall: figures over all classes, by name; ``laece``, ``AP``, ``AP_by_iou`` and
            ``headroom`` are means over the classes that have one.
        per_class: the same figures of each class, by the class's name.
        detections: of all images and classes, matched at ``min_iou``, ``(D,)``.
        calibration: the same, matched at ``calibration_iou``.
        bboxes: the same, xyxy in pixels of the original image, ``(D, 4)``.
    """

    overall: dict[str, float]
    per_class: dict[str, dict[str, float]]
    detections: MatchedDetections
    calibration: MatchedDetections
    bboxes: np.ndarray

    def metrics(self, classwise: bool) -> dict[str, float]:
        """The figures in one dict, those of a class as ``'class/figure'``."""
        metrics = dict(self.overall)
        for name, figures in self.per_class.items() if classwise else ():
            metrics.update({f"{name}/{key}": value for key, value in figures.items()})
        return metrics


class ScoreAlignment:
    """Accumulates the detections of a split and relates their scores to their IoU with GTs.

    Over all classes and for each of them it computes

    - ``spearman``, ``pearson``: see :func:`score_iou_correlation`;
    - ``correct``, ``redundant``, ``error``, ``background``: see :func:`box_counts`;
    - ``laece``: see :func:`localisation_aware_ece`;
    - ``AP``: COCO's AP over IoU 0.5 to 0.95;
    - ``AP_by_iou``: COCO's AP of the boxes that count for ``AP``, with their IoU with the best GT
      of their class in place of the score, the AP of an ideal ranking;
    - ``headroom``: ``AP_by_iou - AP``, the AP lost by the ranking.

    Args:
        coco: annotations, from :func:`~.coco_ap.load_annotations`.
        classes: the detector's classes in the order of its labels; a single one may be a string.
        score_thr: detections with a lower score are left out.
        min_iou: least IoU of a match, for all figures but ``laece`` and ``AP``.
        error_iou: see :func:`box_counts`.
        calibration_iou: least IoU of a match for ``laece``.
        bins: of the score, for ``laece``.
        max_dets: detections per image and class that count for ``AP`` and ``AP_by_iou``, those of
            the highest score.

    Raises:
        InputError: the annotations lack one of the classes.

    Example::

        alignment = ScoreAlignment(load_annotations('instances_val2017.json'), classes)
        for sample in results:
            alignment.update(sample['img_id'], sample['pred_instances'])
        print(alignment.compute().overall['spearman'])
    """

    def __init__(
        self,
        coco: COCO,
        classes: str | Sequence[str],
        *,
        score_thr: float = 0.0,
        min_iou: float = 0.5,
        error_iou: float = 0.1,
        calibration_iou: float = 0.1,
        bins: int = 25,
        max_dets: int = 100,
    ) -> None:
        self.coco = coco
        self.classes = class_names(classes)
        self.categories = category_ids(coco, self.classes)
        self.score_thr = score_thr
        self.min_iou = min_iou
        self.error_iou = error_iou
        self.calibration_iou = calibration_iou
        self.bins = bins
        self.max_dets = max_dets
        self._bboxes: list[np.ndarray] = []
        self._matched: list[MatchedDetections] = []  # at min_iou, per image
        self._calibration: list[MatchedDetections] = []  # at calibration_iou
        self._warn_of_order()

    def update(self, image_id: int | str, pred_instances: Mapping[str, Any]) -> None:
        """Match the detections of one image with its ground truth and keep them.

        Args:
            image_id: of the image in the annotations.
            pred_instances: ``bboxes`` ``(D, 4)``, xyxy in pixels of the original image, ``scores``
                and ``labels`` ``(D,)``, tensors or arrays.

        Raises:
            InputError: the annotations have no such image.
        """
        bboxes, scores, labels = (
            to_numpy(pred_instances[key]) for key in ("bboxes", "scores", "labels")
        )
        kept = scores >= self.score_thr
        bboxes = bboxes.reshape(-1, 4)[kept]
        gts = image_ground_truth(self.coco, image_id, self.categories)
        thresholds = (self.min_iou, self.calibration_iou)
        matched, calibration = match_image(
            image_id, bboxes, scores[kept], labels[kept], gts, thresholds
        )
        self._bboxes.append(bboxes)
        self._matched.append(matched)
        self._calibration.append(calibration)

    def compute(self) -> AlignmentResult:
        """The figures over all images seen.

        Raises:
            InputError: a label beyond the classes.
        """
        detections = MatchedDetections.join(self._matched)
        calibration = MatchedDetections.join(self._calibration)
        if len(detections) == 0:
            MMLogger.get_current_instance().warning(
                "The detector found nothing. Check its score threshold."
            )
        bboxes = np.concatenate(self._bboxes) if self._bboxes else np.zeros((0, 4))
        every = slice(None)
        best = best_of_class(
            detections.image_ids, detections.scores, detections.labels, self.max_dets
        )
        precisions, precisions_by_iou = (
            average_precision(
                self.coco,
                detections.image_ids[own],
                bboxes[own],
                ranking[own],
                detections.labels[own],
                self.categories,
                self.max_dets,
            )
            for ranking, own in ((detections.scores, every), (detections.overlaps, best))
        )
        counted, calibrated = detections[~detections.ignored], calibration[~calibration.ignored]
        per_class = {}
        for label, name in enumerate(self.classes):
            per_class[name] = dict(
                **self._agreement(counted[counted.labels == label]),
                laece=localisation_aware_ece(calibrated[calibrated.labels == label], self.bins),
                AP=precisions[label],
                AP_by_iou=precisions_by_iou[label],
                headroom=precisions_by_iou[label] - precisions[label],
            )
        overall = self._agreement(counted)
        for key in ("laece", "AP", "AP_by_iou", "headroom"):
            overall[key] = _mean([figures[key] for figures in per_class.values()])
        return AlignmentResult(overall, per_class, detections, calibration, bboxes)

    def _agreement(self, detections: MatchedDetections) -> dict[str, float]:
        return dict(
            **score_iou_correlation(detections, self.min_iou),
            **box_counts(detections, self.min_iou, self.error_iou),
        )

    def _warn_of_order(self) -> None:
        names = [category["name"] for category in self.coco.dataset["categories"]]
        order = [name for name in names if name in self.classes]
        if order != list(self.classes):
            MMLogger.get_current_instance().warning(
                f"The annotation file lists the classes as {order}, the dataset as "
                f"{list(self.classes)}. Labels are taken in the dataset's order; mmdet's "
                "CocoDataset and CocoMetric take them in the file's."
            )


def to_numpy(values: Any) -> np.ndarray:
    """An array from a tensor, mmdet's boxes, an array or a list."""
    values = getattr(values, "tensor", values)
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _mean(values: Sequence[float]) -> float:
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def score_iou_correlation(detections: MatchedDetections, min_iou: float = 0.5) -> dict[str, float]:
    """Spearman's and Pearson's correlation of score and IoU over boxes that overlap a GT.

    1 where the better box always has the higher score. Boxes without a GT are left out: that their
    score should be low is a matter of classification, not of alignment.

    Args:
        detections: those with an IoU of at least ``min_iou`` with a GT of their class count, true
            positives or not.
        min_iou: least IoU.

    Returns:
        ``spearman``, ``pearson``; NaN with fewer than two boxes or where either is constant.
    """
    found = detections[detections.overlaps >= min_iou]
    if len(found) < 2 or np.ptp(found.scores) == 0 or np.ptp(found.overlaps) == 0:
        return dict(spearman=float("nan"), pearson=float("nan"))
    pair = found.scores, found.overlaps
    return dict(
        spearman=float(stats.spearmanr(*pair).statistic),
        pearson=float(stats.pearsonr(*pair).statistic),
    )


def box_counts(
    detections: MatchedDetections, min_iou: float = 0.5, error_iou: float = 0.1
) -> dict[str, int]:
    """Counts of boxes by kind, as TOOD's (Feng et al., ICCV 2021, section 4.3).

    Args:
        detections: matched at ``min_iou``.
        min_iou: IoU with the best GT of its class from which on a box is ``correct``, if it is a
            true positive, or ``redundant``, if it is not.
        error_iou: a box with an IoU between this and ``min_iou`` is an ``error``.

    Returns:
        ``correct``, ``redundant``, ``error``, and ``background``: all others.
    """
    overlaps = detections.overlaps
    reaches = overlaps >= min_iou
    error = (overlaps > error_iou) & ~reaches
    return dict(
        correct=int(detections.true_positive.sum()),
        redundant=int((reaches & ~detections.true_positive).sum()),
        error=int(error.sum()),
        background=int((~reaches & ~error).sum()),
    )


def localisation_aware_ece(detections: MatchedDetections, bins: int = 25) -> float:
    """Localisation-aware expected calibration error of one class (Oksuz et al., CVPR 2023).

    ``sum_j |D_j| / |D| * |mean score_j - precision_j * mean IoU_j|`` over equal bins of the score:
    a score is calibrated if it equals the mean IoU of the boxes with that score, where a false
    positive counts as 0.

    Args:
        detections: of one class, matched at the calibration error's IoU threshold.
        bins: J.

    Returns:
        In [0, 1]; NaN without detections.
    """
    if len(detections) == 0:
        return float("nan")
    index = np.clip((detections.scores * bins).astype(int), 0, bins - 1)
    # precision * mean IoU of the true positives is the mean IoU of all, with 0 for the others.
    gap = detections.scores - detections.matched_overlaps
    return float(np.abs(np.bincount(index, gap, bins)).sum() / len(detections))
