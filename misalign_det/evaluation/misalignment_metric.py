"""MisalignmentMetric: do a detector's scores say how good its boxes are?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ..errors import InputError
from .coco_ap import load_annotations
from .score_alignment import ScoreAlignment, to_numpy

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


@METRICS.register_module()
class MisalignmentMetric(BaseMetric):
    """Relate the scores of a detector to the IoU of its boxes.

    For every detector whose results mmdet's ``CocoMetric`` takes, live or from a file of
    ``DumpDetResults`` (``tools/analysis/misalignment.py``). The figures are those of
    :class:`~.score_alignment.ScoreAlignment`: ``spearman`` and ``pearson``, 1 where the better box
    always has the higher score; the box counts ``correct``, ``redundant``, ``error`` and
    ``background``; ``laece``, 0 where the score is calibrated (localisation-aware expected
    calibration error, Oksuz et al., CVPR 2023); ``AP``, ``AP_by_iou`` and ``headroom``, the AP lost
    by the ranking, all three from 0 to 1. Labels beyond the classes and images that the annotations
    lack raise an ``InputError``.

    Args:
        ann_file: annotations in COCO's format, a file or what
            :func:`~.coco_ap.load_annotations` returns. Ids may be integers or strings.
        score_thr: detections with a lower score are left out.
        min_iou: least IoU of a match.
        error_iou: detections with an IoU between it and ``min_iou`` count as ``error``.
        calibration_iou: least IoU of a match for the calibration error; 0.1 in its paper.
        bins: of the score, for the calibration error; 25 in its paper.
        max_dets: detections per image and class that count for AP and AP by IoU.
        classwise: also report each class, as ``class/figure``.
        **kwargs: passed to mmengine's ``BaseMetric``.

    Raises:
        ValueError: an IoU threshold or ``bins`` is out of range.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        ann_file = 'data/coco/annotations/instances_val2017.json'
        test_evaluator = [
            dict(type='CocoMetric', metric='bbox', ann_file=ann_file),
            dict(type='MisalignmentMetric', ann_file=ann_file)]
    """

    default_prefix = "misalignment"

    def __init__(
        self,
        ann_file: str | COCO,
        *,
        score_thr: float = 0.0,
        min_iou: float = 0.5,
        error_iou: float = 0.1,
        calibration_iou: float = 0.1,
        bins: int = 25,
        max_dets: int = 100,
        classwise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= error_iou <= min_iou <= 1 or not 0 < calibration_iou <= 1:
            raise ValueError(
                "0 <= error_iou <= min_iou <= 1 and 0 < calibration_iou <= 1 must hold, not "
                f"{error_iou}, {min_iou} and {calibration_iou}."
            )
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}.")
        self.ann_file = ann_file
        self.score_thr = score_thr
        self.min_iou = min_iou
        self.error_iou = error_iou
        self.calibration_iou = calibration_iou
        self.bins = bins
        self.max_dets = max_dets
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
            arrays = {key: to_numpy(found[key]) for key in ("bboxes", "scores", "labels")}
            self.results.append((sample["img_id"], arrays))

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """The figures over all images, of all processes.

        Args:
            results: what :meth:`process` kept. They are matched here and not there: mmengine
                gathers them from all processes in between.

        Raises:
            InputError: no class names are known, or they, the labels or the images do not fit the
                annotations.
        """
        if not self.dataset_meta or not self.dataset_meta.get("classes"):
            raise InputError("MisalignmentMetric needs the class names: dataset_meta['classes'].")
        alignment = ScoreAlignment(
            load_annotations(self.ann_file),
            self.dataset_meta["classes"],
            score_thr=self.score_thr,
            min_iou=self.min_iou,
            error_iou=self.error_iou,
            calibration_iou=self.calibration_iou,
            bins=self.bins,
            max_dets=self.max_dets,
        )
        for image_id, pred_instances in results:
            alignment.update(image_id, pred_instances)
        return alignment.compute().metrics(self.classwise)
