"""VisDroneMetric: AP and AR as VisDrone-DET's toolkit counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import InputError
from ..utils import class_names
from ..utils.text import shorten
from .coco_ap import category_ids, load_annotations, matched_boxes
from .score_alignment import to_numpy

if TYPE_CHECKING:
    from mmdet.datasets.api_wrappers import COCO


def covered_fraction(boxes: np.ndarray, regions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Part of each box that ignored regions cover together, in pixels as VisDrone's toolkit counts.

    It counts pixels from 1: a region has one more row and column at its top and left, and a box
    begins at the second pixel at least.

    Args:
        boxes: xyxy in pixels, ``(N, 4)``.
        regions: xyxy in pixels, ``(R, 4)``.
        shape: (height, width) of the image.

    Returns:
        Fractions of the boxes' areas, inside the image and outside, ``(N,)``.

    Example:
        >>> region, boxes = np.array([[0, 0, 9, 9]]), np.array([[5, 1, 15, 9], [20, 1, 30, 9]])
        >>> covered_fraction(boxes, region, (50, 50)).tolist()
        [0.5, 0.0]
    """
    height, width = shape
    limits = np.array([width, height, width, height])
    covered = np.zeros((height + 1, width + 1))
    for x1, y1, x2, y2 in _in_pixels(regions, limits):
        covered[y1 : y2 + 1, x1 : x2 + 1] = 1  # row and column 0 are no pixels
    total = covered.cumsum(0).cumsum(1)
    whole = _in_pixels(boxes, np.full(4, np.inf))
    x1, y1, x2, y2 = np.minimum(whole, limits).T
    inside = total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1]
    return inside / ((whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1]))


def _in_pixels(boxes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Boxes (x1, y1, x2, y2) in whole pixels from 1, their sides at least 1."""
    start = np.maximum(np.round(boxes[:, :2]), 1)
    sides = np.maximum(np.round(boxes[:, 2:] - boxes[:, :2]), 1)
    return np.minimum(np.concatenate([start, start + sides], axis=1), limits).astype(int)


@METRICS.register_module()
class VisDroneMetric(BaseMetric):
    """AP and AR of VisDrone-DET's toolkit: 500 detections of an image, without ignored regions.

    A detection with half of its area or more in the ignored regions of its image does not count.
    AP is the area under the precision-recall curve of a class, averaged over IoU 0.5 to 0.95. As in
    the toolkit, a class counts in the means as often as there are images with it. Objects that
    VisDrone leaves out by a score of 0 (``iscrowd``) are no false positives where they are found,
    and count among the objects of a recall. mmdet's ``CocoMetric`` does not reach 500: whatever its
    ``proposal_nums``, its mAP is of 100 detections per class.

    Source: https://github.com/VisDrone/VisDrone2018-DET-toolkit

    Args:
        ann_file: annotations of ``tools/dataset_converters/visdrone.py``, a COCO file with
            ``ignored_regions`` (x, y, w, h) in each image.
        max_dets: detections per image, of all classes together; the last is AP's.
        classwise: whether the AP of each class is given as well.
        **kwargs: passed to mmengine's ``BaseMetric``.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        ann_file = 'data/visdrone/annotations/instances_val.json'
        test_evaluator = [
            dict(type='CocoMetric', metric='bbox', ann_file=ann_file),
            dict(type='VisDroneMetric', ann_file=ann_file)]
    """

    default_prefix = "visdrone"

    def __init__(
        self,
        ann_file: str,
        max_dets: int | Sequence[int] = (1, 10, 100, 500),
        classwise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_dets = sorted([max_dets] if isinstance(max_dets, int) else max_dets)
        if not self.max_dets or self.max_dets[0] < 1:
            raise ValueError(f"max_dets must be at least 1, not {max_dets}.")
        self.ann_file = ann_file
        self.classwise = classwise

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep boxes, scores and labels of each image.

        Args:
            data_batch: not used.
            data_samples: each with ``img_id`` and ``pred_instances``: ``bboxes`` ``(D, 4)`` xyxy in
                pixels of the original image, ``scores`` and ``labels`` ``(D,)``.
        """
        for sample in data_samples:
            found = sample["pred_instances"]
            arrays = [to_numpy(found[key]) for key in ("bboxes", "scores", "labels")]
            self.results.append((sample["img_id"], *arrays))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """The figures over all images, of all processes.

        Args:
            results: what :meth:`process` kept.

        Returns:
            ``AP``, ``AP50``, ``AP75``, and ``AR1``, ``AR10``, ... of ``max_dets``, from 0 to 1;
            ``{class}_precision`` with ``classwise``. NaN without objects.

        Raises:
            InputError: no class names are known, or they or the images do not fit the annotations;
                there is no image, or one without a size.
        """
        if not self.dataset_meta or not self.dataset_meta.get("classes"):
            raise InputError("VisDroneMetric needs the class names: dataset_meta['classes'].")
        classes = class_names(self.dataset_meta["classes"])
        if not results:
            raise InputError("VisDroneMetric has no image to evaluate: its dataset is empty.")
        coco = load_annotations(self.ann_file)
        lacking = [i["id"] for i in coco.imgs.values() if not (i.get("width") and i.get("height"))]
        if lacking:
            raise InputError(
                f"{self.ann_file}: {len(lacking)} images have no width or height (ids "
                f"{shorten(lacking)}), which VisDroneMetric needs. Add both, in pixels."
            )
        kept: list[list[np.ndarray]] = [[], [], [], [], []]
        for image_id, bboxes, scores, labels in results:
            image = coco.imgs.get(image_id)
            if image is None:
                raise InputError(f"{self.ann_file} has no image with the id {image_id}.")
            chosen = self._counting(image, bboxes, scores)
            ids = np.full(len(chosen), image_id, dtype=object)
            ranks = np.arange(len(chosen))
            parts = (ids, bboxes[chosen], scores[chosen], labels[chosen], ranks)
            for part, array in zip(kept, parts):
                part.append(array)
        ids, bboxes, scores, labels, ranks = (np.concatenate(part) for part in kept)
        categories = category_ids(coco, classes)
        most = self.max_dets[-1]
        matches = matched_boxes(coco, ids, bboxes, scores, labels, categories, most).evalImgs
        numbers, images = _objects(coco, categories)
        # pycocotools has an entry per class and image, in this order; ids of detections begin at 1.
        per_class = np.array(matches, dtype=object).reshape(len(categories), -1)
        figures = [
            _ap_and_recalls([m for m in entries if m], number, ranks, self.max_dets)
            for entries, number in zip(per_class, numbers)
        ]
        aps, recalls = (np.array(part) for part in zip(*figures))  # (C, IoU), (C, max_dets, IoU)
        values = {"AP": aps.mean(1), "AP50": aps[:, 0], "AP75": aps[:, 5]}
        values |= {f"AR{k}": recalls[:, i].mean(1) for i, k in enumerate(self.max_dets)}
        there = images > 0
        means = {
            name: float(np.average(value[there], weights=images[there])) if there.any() else np.nan
            for name, value in values.items()
        }
        if self.classwise:
            names = [f"{name}_precision" for name in classes]  # as CocoMetric's
            means |= dict(zip(names, np.where(there, values["AP"], np.nan).tolist()))
        return means

    def _counting(self, image: dict, bboxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Indices of the detections of an image that count, by score."""
        regions = np.array(image.get("ignored_regions") or np.zeros((0, 4)), dtype=float)
        regions[:, 2:] += regions[:, :2]
        shape = (image["height"], image["width"])
        outside = np.flatnonzero(covered_fraction(bboxes, regions, shape) < 0.5)
        order = np.argsort(-scores[outside], kind="stable")
        return outside[order[: self.max_dets[-1]]]


def _objects(coco: COCO, categories: Sequence[int | str]) -> tuple[np.ndarray, np.ndarray]:
    """The number of objects of each class, and of images that have any, ``(C,)``.

    An ignored region, which is a crowd of each class in the converted annotations, is no object.
    """
    places = {category: i for i, category in enumerate(categories)}
    numbers = np.zeros(len(places), dtype=int)
    images: list[set] = [set() for _ in places]
    for box in coco.dataset.get("annotations", ()):
        place, image = places.get(box["category_id"]), coco.imgs.get(box["image_id"])
        if place is None or image is None:
            continue
        if list(box["bbox"]) not in map(list, image.get("ignored_regions") or ()):
            numbers[place] += 1
            images[place].add(box["image_id"])
    return numbers, np.array([len(of_class) for of_class in images])


def _ap_and_recalls(
    matches: Sequence[Mapping], number: int, ranks: np.ndarray, max_dets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """AP of a class at each IoU, ``(10,)``, and recall by ``max_dets``, ``(len(max_dets), 10)``.

    AP is Pascal VOC's since 2010: the sum over the true positives of the highest precision at their
    recall or above, divided by the number of objects.

    Args:
        matches: pycocotools' of each image.
        number: of objects.
        ranks: of each detection among those of its image, by score.
        max_dets: see :class:`VisDroneMetric`. A detection is matched before those of lower scores,
            so that those of one limit have the same matches among more.
    """
    if not matches or number == 0:
        return np.zeros(10), np.zeros((len(max_dets), 10))
    scores = np.concatenate([match["dtScores"] for match in matches])
    order = np.argsort(-scores, kind="stable")
    ids = np.concatenate([np.asarray(match["dtIds"], dtype=int) for match in matches])[order]
    matched = np.concatenate([match["dtMatches"] for match in matches], axis=1)[:, order] > 0
    ignored = np.concatenate([match["dtIgnore"] for match in matches], axis=1)[:, order] > 0
    true = matched & ~ignored
    recalls = [(true & (ranks[ids - 1] < k)).sum(1) / number for k in max_dets]
    true_positives, counted = true.cumsum(1), (~ignored).cumsum(1)
    precision = true_positives / np.maximum(counted, 1)
    # The highest precision at this or a higher recall.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (precision * true).sum(1) / number, np.array(recalls)
