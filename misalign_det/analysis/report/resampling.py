"""The report's figures with confidence intervals, by a bootstrap over the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...evaluation.coco_ap import best_of_class
from ...evaluation.coco_matching import MatchedDetections
from ...evaluation.paired_bootstrap import drawn_images, interval, resampled_class_ap
from ...evaluation.score_alignment import (
    AlignmentResult,
    localisation_aware_ece,
    score_iou_correlation,
)

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see evaluation/coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


@dataclass
class Resampled:
    """A figure on a split and on resamples of its images.

    Attributes:
        value: on the split; NaN where there is nothing to measure.
        draws: on each resample, ``(R,)``. Figures of the same split and seed have the same images,
            draw by draw.

    Example:
        >>> gain = Resampled(0.5, np.array([0.4, 0.5, 0.6])) - Resampled(0.4, np.zeros(3) + 0.4)
        >>> round(gain.value, 2), [round(end, 2) for end in gain.interval()]
        (0.1, [0.01, 0.19])
    """

    value: float
    draws: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.value - other.value, self.draws - other.draws)

    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval; NaN without a draw that has a value."""
        if np.isnan(self.draws).all():
            return float("nan"), float("nan")
        return interval(self.draws)


class Resampling:
    """Computes figures of one detector on the same resamples of the images.

    Args:
        coco: annotations; their images are resampled.
        classes: the detector's classes in the order of its labels.
        resamples: number of resamples; 0 gives values without intervals.
        seed: of the resamples.
    """

    def __init__(
        self, coco: COCO, classes: Sequence[str], resamples: int = 200, seed: int = 0
    ) -> None:
        self.coco = coco
        self.classes = classes
        self.resamples = resamples
        self.seed = seed
        self.image_ids = list(coco.getImgIds())

    def alignment(self, result: AlignmentResult) -> dict[str, Resampled]:
        """Figures on scores and boxes.

        Args:
            result: of :class:`~misalign_det.evaluation.score_alignment.ScoreAlignment`.

        Returns:
            ``AP``, ``AP_by_iou``, ``headroom`` and ``laece``, as in the result; ``headroom/CLASS``
            per class; ``explained``, the square of Spearman's correlation with its sign, so
            that scores that rank the wrong way round explain less than none; ``overconfidence``,
            the mean of score minus IoU with the matched GT, 0 without one.
        """
        boxes = result.detections
        best = best_of_class(boxes.image_ids, boxes.scores, boxes.labels)
        aps = [
            self._class_ap(
                boxes.image_ids[own], result.bboxes[own], ranking[own], boxes.labels[own]
            )
            for ranking, own in ((boxes.scores, slice(None)), (boxes.overlaps, best))
        ]
        headrooms = [by_iou - ap for ap, by_iou in zip(*aps)]
        found = dict(AP=_mean(aps[0]), AP_by_iou=_mean(aps[1]), headroom=_mean(headrooms))
        found |= {f"headroom/{name}": one for name, one in zip(self.classes, headrooms)}
        counted = boxes[~boxes.ignored & (boxes.overlaps >= 0.5)]
        calibrated = result.calibration[~result.calibration.ignored]
        labels = range(len(self.classes))
        return found | dict(
            explained=self._of_boxes(counted, _explained),
            laece=self._of_boxes(
                calibrated,
                lambda some: _nanmean(
                    [localisation_aware_ece(some[some.labels == label]) for label in labels]
                ),
            ),
            overconfidence=self._of_boxes(
                calibrated, lambda some: _nanmean(some.scores - some.matched_overlaps)
            ),
        )

    def ap(self, found: Sequence[dict[str, Any]]) -> Resampled:
        """COCO's AP of detections as ``load_detections`` gives them."""
        value, draws = resampled_class_ap(
            self.coco, list(found), self.classes, self.resamples, self.seed
        )
        return _mean([Resampled(v, d) for v, d in zip(value, draws.T)])

    def median(self, values: Mapping[int | str, np.ndarray]) -> Resampled:
        """The median over the objects of the images.

        Args:
            values: per image id one value per object, ``(g,)``.
        """
        per_image = [values.get(image, np.zeros(0)) for image in self.image_ids]
        return self._resample(per_image, lambda some: float(np.median(some)) if len(some) else _NAN)

    def _class_ap(
        self, image_ids: np.ndarray, bboxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> list[Resampled]:
        rows = _rows_of(image_ids)
        found = [
            dict(
                img_id=image,
                pred_instances=dict(bboxes=bboxes[own], scores=scores[own], labels=labels[own]),
            )
            for image, own in rows.items()
        ]
        value, draws = resampled_class_ap(self.coco, found, self.classes, self.resamples, self.seed)
        return [Resampled(float(v), d) for v, d in zip(value, draws.T)]

    def _of_boxes(
        self, boxes: MatchedDetections, figure: Callable[[MatchedDetections], float]
    ) -> Resampled:
        rows = _rows_of(boxes.image_ids)
        per_image = [rows.get(image, np.zeros(0, np.int64)) for image in self.image_ids]
        return self._resample(per_image, lambda some: figure(boxes[some]))

    def _resample(
        self, per_image: Sequence[np.ndarray], figure: Callable[[np.ndarray], float]
    ) -> Resampled:
        draws = [
            figure(np.concatenate([per_image[image] for image in drawn]))
            for drawn in drawn_images(len(per_image), self.resamples, self.seed)
        ]
        return Resampled(figure(np.concatenate(per_image)), np.array(draws, np.float64))


_NAN = float("nan")


def _explained(some: MatchedDetections) -> float:
    spearman = score_iou_correlation(some)["spearman"]
    return spearman * abs(spearman)


def _rows_of(image_ids: np.ndarray) -> dict[int | str, np.ndarray]:
    """The rows of each image."""
    rows: dict[int | str, list[int]] = {}
    for row, image in enumerate(image_ids.tolist()):
        rows.setdefault(image, []).append(row)
    return {image: np.array(own, np.int64) for image, own in rows.items()}


def _nanmean(values: Sequence[float] | np.ndarray) -> float:
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else _NAN


def _mean(parts: Sequence[Resampled]) -> Resampled:
    """The mean over the classes that have objects, on the split and on each resample."""
    draws = np.stack([part.draws for part in parts])
    known = ~np.isnan(draws)
    with np.errstate(invalid="ignore"):
        means = np.where(known, draws, 0.0).sum(axis=0) / known.sum(axis=0)
    return Resampled(_nanmean([part.value for part in parts]), means)
