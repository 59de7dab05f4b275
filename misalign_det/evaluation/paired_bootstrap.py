"""Paired bootstrap over images: the confidence interval of a difference in AP."""

from __future__ import annotations

from collections.abc import Sequence
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
    ids = category_ids(coco, classes)
    images = len(coco.getImgIds())
    if not images:
        raise InputError("the annotation file has no images")
    if not any(a["category_id"] in set(ids) for a in coco.dataset.get("annotations", ())):
        raise InputError("the annotation file has no object of these classes: there is no AP")
    sides = [[_evaluate(coco, found, ids) for found in side] for side in (first, second)]
    first_ap, second_ap = (_average(side, np.arange(images)) for side in sides)
    generator = np.random.default_rng(seed)
    gains = []
    bar = ProgressBar(resamples) if progress else None
    for _ in range(resamples):
        drawn = generator.integers(images, size=images)
        before, after = (_average(side, drawn) for side in sides)
        gains.append(after - before)
        if bar:
            bar.update()
    if bar:
        print()
    tail = (1 - confidence) / 2
    # A resample without any object has no AP.
    low, high = np.nanquantile(gains, [tail, 1 - tail])
    return APDifference(first_ap, second_ap, float(low), float(high), images)


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


def _average(evaluations: list[COCOeval], images: np.ndarray) -> float:
    """Mean AP of several trainings over the images of some indices, which may repeat."""
    return float(np.mean([_ap(evaluation, images) for evaluation in evaluations]))


def _ap(evaluation: COCOeval, images: np.ndarray) -> float:
    whole = evaluation.evalImgs  # class by class, image by image
    classes = range(0, len(whole), len(images))
    evaluation.evalImgs = [whole[start + image] for start in classes for image in images]
    precision = accumulated(evaluation)
    evaluation.evalImgs = whole
    return _mean_precision(precision)


def _mean_precision(precision: np.ndarray) -> float:
    counted = precision[precision > -1]  # -1 where a class has no object
    return float(counted.mean()) if len(counted) else float("nan")
