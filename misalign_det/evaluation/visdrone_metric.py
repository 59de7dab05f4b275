"""VisDroneMetric: AP as VisDrone-DET counts it, with 500 detections and ignored regions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import InputError
from .coco_ap import accumulated, category_ids, load_annotations, matched_boxes
from .score_alignment import to_numpy


def covered_fraction(boxes: np.ndarray, regions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Part of each box that regions cover together.

    Args:
        boxes: xyxy in pixels, ``(N, 4)``.
        regions: xyxy in pixels, ``(R, 4)``.
        shape: (height, width) of the image.

    Returns:
        Fractions of the boxes' areas, counted in whole pixels of the image, ``(N,)``.

    Example:
        >>> region, boxes = np.array([[0, 0, 10, 10]]), np.array([[5, 0, 15, 10], [20, 0, 30, 9]])
        >>> covered_fraction(boxes, region, (50, 50)).tolist()
        [0.5, 0.0]
    """
    height, width = shape
    covered = np.zeros((height + 1, width + 1))
    limits = np.array([width, height, width, height])
    for x1, y1, x2, y2 in np.clip(np.round(regions), 0, limits).astype(int):
        covered[y1 + 1 : y2 + 1, x1 + 1 : x2 + 1] = 1
    total = covered.cumsum(0).cumsum(1)
    x1, y1, x2, y2 = np.clip(np.round(boxes), 0, limits).astype(int).reshape(-1, 4).T
    inside = total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return inside / np.maximum(areas, 1.0)


@METRICS.register_module()
class VisDroneMetric(BaseMetric):
    """AP, AP50 and AP75 of the 500 highest scores of an image, without ignored regions.

    A detection with half of its area or more in the ignored regions of its image does not count.
    Objects with ``iscrowd`` are ignored. Precision is averaged at COCO's 101 recalls, where
    VisDrone's own toolkit takes the area under the curve. mmdet's ``CocoMetric`` does not reach
    500: whatever its ``proposal_nums``, its mAP is of 100 detections per class.

    Args:
        ann_file: annotations of ``tools/dataset_converters/visdrone.py``, a COCO file with
            ``ignored_regions`` (x, y, w, h) in each image.
        max_dets: detections per image, of all classes together.
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

    def __init__(self, ann_file: str, max_dets: int = 500, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_dets < 1:
            raise ValueError(f"max_dets must be at least 1, not {max_dets}.")
        self.ann_file = ann_file
        self.max_dets = max_dets

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
            ``AP``, ``AP50`` and ``AP75``, means over the classes that have objects.

        Raises:
            InputError: no class names are known, or they or the images do not fit the annotations.
        """
        if not self.dataset_meta or not self.dataset_meta.get("classes"):
            raise InputError("VisDroneMetric needs the class names: dataset_meta['classes'].")
        coco = load_annotations(self.ann_file)
        kept: list[list[np.ndarray]] = [[], [], [], []]
        for image_id, bboxes, scores, labels in results:
            image = coco.imgs.get(image_id)
            if image is None:
                raise InputError(f"{self.ann_file} has no image with the id {image_id}.")
            chosen = self._counting(image, bboxes, scores)
            own = (np.full(len(bboxes), image_id, dtype=object), bboxes, scores, labels)
            for part, array in zip(kept, own):
                part.append(array[chosen])
        ids, bboxes, scores, labels = (np.concatenate(part) for part in kept)
        categories = category_ids(coco, self.dataset_meta["classes"])
        evaluation = matched_boxes(coco, ids, bboxes, scores, labels, categories, self.max_dets)
        precision = accumulated(evaluation)[..., 0, 0]  # IoU, recall, class; -1 without objects
        parts = {"AP": precision, "AP50": precision[:1], "AP75": precision[5:6]}
        return {
            name: float(part[part > -1].mean()) if (part > -1).any() else float("nan")
            for name, part in parts.items()
        }

    def _counting(self, image: dict, bboxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Indices of the detections of an image that count."""
        regions = np.array(image.get("ignored_regions") or np.zeros((0, 4)), dtype=float)
        regions[:, 2:] += regions[:, :2]
        shape = (image["height"], image["width"])
        outside = np.flatnonzero(covered_fraction(bboxes, regions, shape) < 0.5)
        order = np.argsort(-scores[outside], kind="stable")
        return outside[order[: self.max_dets]]
