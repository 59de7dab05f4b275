"""Paired bootstrap over images, and seeds: the confidence interval of a difference in AP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.utils import ProgressBar

from ..errors import InputError
from ..utils import class_names
from .coco_ap import accumulated, category_ids, check_images, matched_boxes

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO, COCOeval


@dataclass
class APDifference:
    """AP of two detectors on the same images, and the interval of the difference.

    Attributes:
        first, second: COCO's AP, 0 to 1.
        low, high: ends of the confidence interval of ``second - first``.
        images: number of images of the split.
    """

    first: float
    second: float
    low: float
    high: float
    images: int

    @property
    def gain(self) -> float:
        """``second - first``."""
        return self.second - self.first

    def __str__(self) -> str:
        gain, low, high = (f"{100 * value:+.1f}" for value in (self.gain, self.low, self.high))
        return f"{gain} AP ({low} to {high} on resamples of the {self.images} images)"


def ap_difference(
    coco: COCO,
    first: Sequence[list[dict[str, Any]]],
    second: Sequence[list[dict[str, Any]]],
    classes: str | Sequence[str],
    resamples: int = 300,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> APDifference:
    """COCO's AP of two detectors, and the percentile interval of a paired bootstrap.

    Each resample draws images with replacement, the same for both detectors, and computes AP on
    them. The interval says how far the gain depends on the images of the split, not on the seeds
    of training; the AP of several trainings of a detector is averaged.

    Args:
        coco: annotations, from :func:`~.coco_ap.load_annotations`.
        first, second: detections of one or more trainings of each detector, as
            :func:`~.detections_file.load_detections` returns them.
        classes: the detectors' classes in the order of the labels; a single one may be a string.
        resamples: number of resamples.
        confidence: level of the interval, between 0 and 1.
        seed: of the random resamples.
        progress: whether a progress bar is shown.

    Raises:
        InputError: the annotations have no images or no object of the classes, or lack an image or
            a class of the detections.
    """
    first_side, second_side = (
        resampled_ap(coco, side, classes, resamples, seed, progress) for side in (first, second)
    )
    gains = second_side.draws.mean(axis=0) - first_side.draws.mean(axis=0)
    low, high = interval(gains, confidence)
    images = len(coco.getImgIds())
    return APDifference(first_side.mean, second_side.mean, low, high, images)


@dataclass
class ResampledAP:
    """AP of several trainings of a detector on resamples of a split's images.

    Attributes:
        whole: AP of each training on the split, ``(T,)``.
        draws: AP of each training on each resample, ``(T, R)``; NaN without any object. Column by
            column the images are those of any other detector with the same seed.
    """

    whole: np.ndarray
    draws: np.ndarray

    @property
    def mean(self) -> float:
        """AP on the split, averaged over the trainings."""
        return float(self.whole.mean())

    def with_seeds(self, seed: int) -> np.ndarray:
        """Mean AP of trainings drawn with replacement, others for each resample, ``(R,)``.

        Args:
            seed: of the draws of trainings; another one for each detector, whose seeds of training
                have nothing in common.
        """
        trainings, resamples = self.draws.shape
        drawn = np.random.default_rng(seed).integers(trainings, size=(trainings, resamples))
        return np.take_along_axis(self.draws, drawn, axis=0).mean(axis=0)


def resampled_ap(
    coco: COCO,
    trainings: Sequence[list[dict[str, Any]]],
    classes: str | Sequence[str],
    resamples: int = 300,
    seed: int = 0,
    progress: bool = False,
) -> ResampledAP:
    """COCO's AP of some trainings of a detector on resamples of the images.

    Args:
        coco, classes, resamples, seed, progress: see :func:`ap_difference`.
        trainings: detections of each, as :func:`~.detections_file.load_detections` returns them.

    Raises:
        InputError: see :func:`ap_difference`.
    """
    ids = category_ids(coco, classes)
    images = len(coco.getImgIds())
    if not images:
        raise InputError("the annotation file has no images")
    if not any(a["category_id"] in set(ids) for a in coco.dataset.get("annotations", ())):
        raise InputError("the annotation file has no object of these classes: there is no AP")
    evaluations = [_evaluate(coco, found, ids) for found in trainings]
    whole = np.array([_ap(evaluation, np.arange(images)) for evaluation in evaluations])
    draws = np.empty((len(evaluations), resamples))
    bar = ProgressBar(resamples) if progress else None
    for column, drawn in enumerate(drawn_images(images, resamples, seed)):
        draws[:, column] = [_ap(evaluation, drawn) for evaluation in evaluations]
        if bar:
            bar.update()
    if bar:
        print()
    return ResampledAP(whole, draws)


def drawn_images(images: int, resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The images of each resample, drawn with replacement: their indices, ``(images,)`` each.

    Args:
        images: number of images of the split, in the order of the annotations.
        resamples: number of resamples.
        seed: figures resampled with the same seed have the same images, draw by draw.

    Example:
        >>> [len(drawn) for drawn in drawn_images(5, resamples=2)]
        [5, 5]
    """
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(images, size=images)


def resampled_class_ap(
    coco: COCO,
    found: list[dict[str, Any]],
    classes: str | Sequence[str],
    resamples: int = 300,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's AP of each class, on the split and on the resamples of :func:`drawn_images`.

    Args:
        coco, classes, resamples, seed: see :func:`ap_difference`.
        found: detections, as :func:`~.detections_file.load_detections` returns them.

    Returns:
        AP on the split, ``(C,)``, and on the resamples, ``(R, C)``; NaN for a class without
        objects.

    Raises:
        InputError: the annotations lack an image or a class of the detections.
    """
    ids = category_ids(coco, classes)
    evaluation, images = _evaluate(coco, found, ids), len(coco.getImgIds())
    draws = np.empty((resamples, len(ids)))
    for row, drawn in enumerate(drawn_images(images, resamples, seed)):
        draws[row] = _class_ap(_resampled_precision(evaluation, drawn))
    return _class_ap(_resampled_precision(evaluation, np.arange(images))), draws


def interval(gains: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the percentile interval; a resample without any object, NaN, does not count.

    Args:
        gains: one per resample, ``(R,)``.
        confidence: level of the interval, between 0 and 1.
    """
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(gains, [tail, 1 - tail])
    return float(low), float(high)


def coco_figures(
    coco: COCO,
    found: list[dict[str, Any]],
    classes: str | Sequence[str],
    max_dets: int = 100,
    detailed: bool = False,
) -> dict[str, Any]:
    """COCO's AP, AP50 and AP75 over all classes, 0 to 1; NaN without any object.

    Args:
        coco: annotations, from :func:`~.coco_ap.load_annotations`.
        found: detections, as :func:`~.detections_file.load_detections` returns them.
        classes: the detector's classes in the order of the labels; a single one may be a string.
        max_dets: boxes per image and class that count.
        detailed: whether APs, APm and APl, of small, medium and large objects, are added, and
            ``per_class``, the AP of each class by its name.

    Raises:
        InputError: the annotations lack an image or a class of the detections.
    """
    ids = category_ids(coco, classes)
    precision = accumulated(_evaluate(coco, found, ids, max_dets, by_size=detailed))
    whole = precision[:, :, :, 0]
    parts = dict(AP=whole, AP50=whole[0], AP75=whole[5])
    if detailed:
        parts |= {f"AP{size}": precision[:, :, :, i] for i, size in enumerate("sml", 1)}
    figures: dict[str, Any] = {name: _mean_precision(part) for name, part in parts.items()}
    if detailed:
        each = (_mean_precision(whole[:, :, i]) for i in range(len(ids)))
        figures["per_class"] = dict(zip(class_names(classes), each))
    return figures


def _evaluate(
    coco: COCO,
    found: list[dict[str, Any]],
    ids: Sequence[int | str],
    max_dets: int = 100,
    by_size: bool = False,
) -> COCOeval:
    check_images(coco, [sample["img_id"] for sample in found])
    instances = [sample["pred_instances"] for sample in found]
    images = [s["img_id"] for s, part in zip(found, instances) for _ in range(len(part["scores"]))]
    bboxes, scores, labels = (
        np.concatenate([np.asarray(part[key]) for part in instances] or [np.empty(0)])
        for key in ("bboxes", "scores", "labels")
    )
    return matched_boxes(coco, images, bboxes, scores, labels, ids, max_dets, by_size)


def _ap(evaluation: COCOeval, images: np.ndarray) -> float:
    return _mean_precision(_resampled_precision(evaluation, images))


def _resampled_precision(evaluation: COCOeval, images: np.ndarray) -> np.ndarray:
    """Precision as :func:`~.coco_ap.accumulated` gives it, of the images with these indices."""
    whole = evaluation.evalImgs  # class by class, image by image
    classes = range(0, len(whole), len(images))
    evaluation.evalImgs = [whole[start + image] for start in classes for image in images]
    precision = accumulated(evaluation)
    evaluation.evalImgs = whole
    return precision


def _class_ap(precision: np.ndarray) -> np.ndarray:
    return np.array([_mean_precision(precision[:, :, i, 0]) for i in range(precision.shape[2])])


def _mean_precision(precision: np.ndarray) -> float:
    counted = precision[precision > -1]  # -1 where a class has no object
    return float(counted.mean()) if len(counted) else float("nan")
