"""How well scores tell good boxes from bad ones: correlation, counts, calibration.

Each function takes matched detections of one class or of several and returns plain numbers; NaN
where there is nothing to measure.
"""

import numpy as np
from scipy import stats

from .coco_matching import MatchedDetections


def score_iou_correlation(detections: MatchedDetections, min_iou: float = 0.5) -> dict[str, float]:
    """Spearman's and Pearson's correlation of score and IoU over boxes that found an object.

    1 where the better box always has the higher score. Boxes that found nothing are left out: that
    their score should be low is a matter of classification, not of alignment.

    Args:
        detections: D of them; those of an IoU of at least ``min_iou`` with an object of their class
            count, whether they are the first on it or not.
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
    """The kinds of boxes that TOOD counts (Feng et al., ICCV 2021, section 4.3).

    Args:
        detections: matched at ``min_iou``.
        min_iou: a box that reaches this IoU with an object is ``correct`` if it is the object's
            first in order of score, ``redundant`` otherwise.
        error_iou: a box between this and ``min_iou`` is an ``error``: it saw something and missed.

    Returns:
        ``correct``, ``redundant``, ``error``, and ``background``: the rest.
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
    a score is calibrated if it is the IoU that one may expect, counting false positives as 0.

    Args:
        detections: of one class, matched at the threshold of the measure.
        bins: J.

    Returns:
        In [0, 1]; NaN without detections.
    """
    if len(detections) == 0:
        return float("nan")
    index = np.clip((detections.scores * bins).astype(int), 0, bins - 1)
    # precision x mean IoU of the true positives is the mean of an IoU that is 0 for the others.
    gap = detections.scores - detections.matched_overlaps
    return float(np.abs(np.bincount(index, gap, bins)).sum() / len(detections))
