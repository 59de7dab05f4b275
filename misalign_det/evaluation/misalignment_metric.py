"""MisalignmentMetric: do a detector's scores say how good its boxes are?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ..errors import InputError
from ..utils import class_names
from .coco_ap import average_precision, category_ids, is_crowd, load_annotations
from .coco_matching import MatchedDetections, match_image
from .score_alignment import box_counts, localisation_aware_ece, score_iou_correlation

if TYPE_CHECKING:  # mmdet.datasets is loaded where it is needed: see coco_ap.py
    from mmdet.datasets.api_wrappers import COCO


@METRICS.register_module()
class MisalignmentMetric(BaseMetric):
    """Relate the scores of a detector to the IoU of its boxes.

    Of every detector whose results mmdet's ``CocoMetric`` takes, live or from a file of
    ``DumpDetResults`` (``tools/analysis/misalignment.py``). Over all classes, and for each with
    ``classwise``:

    - ``spearman``, ``pearson``: correlation of score and IoU over boxes that found an object, 1 is
      aligned; see :func:`~.score_alignment.score_iou_correlation`;
    - ``correct``, ``redundant``, ``error``, ``background``: numbers of boxes, as TOOD counts them;
      see :func:`~.score_alignment.box_counts`;
    - ``laece``: localisation-aware calibration error, 0 is calibrated, the mean over classes; see
      :func:`~.score_alignment.localisation_aware_ece`;
    - ``AP``, ``AP_by_iou``, ``headroom``: COCO's AP, the AP of the same boxes ranked by their IoU
      with the best object of their class, and the difference: what scores alone cost.

    Args:
        ann_file: annotations in COCO's format, a file or what
            :func:`~.coco_ap.load_annotations` returns. Ids may be integers or strings.
        score_thr: boxes below it are left out.
        min_iou: from here on a box has found its object.
        error_iou: and from here on it is an error.
        calibration_iou: least IoU of a true positive of the calibration error; 0.1 in its paper.
        bins: of the calibration error; 25 in its paper.
        max_dets: boxes an image that count for AP.
        classwise: whether each class is reported, too.
        collect_device, prefix: see mmengine's ``BaseMetric``.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        test_evaluator = [
            dict(type='CocoMetric', metric='bbox', ann_file='instances_val2017.json'),
            dict(type='MisalignmentMetric', ann_file='instances_val2017.json')]
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
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
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
            bboxes, scores, labels = (_to_numpy(found[k]) for k in ("bboxes", "scores", "labels"))
            kept = scores >= self.score_thr
            self.results.append(
                (sample["img_id"], bboxes.reshape(-1, 4)[kept], scores[kept], labels[kept])
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures over all images.

        Args:
            results: what :meth:`process` kept.

        Raises:
            InputError: no class names are known, or they, the labels or the images do not fit the
                annotations.
        """
        if not self.dataset_meta or not self.dataset_meta.get("classes"):
            raise InputError("MisalignmentMetric needs the class names: dataset_meta['classes'].")
        classes = class_names(self.dataset_meta["classes"])
        coco = load_annotations(self.ann_file)
        categories = category_ids(coco, classes)
        self._check_order(coco, classes)
        found = self.match(results, coco, categories, self.min_iou)
        calibration = self.match(results, coco, categories, self.calibration_iou)
        if len(found) == 0:
            MMLogger.get_current_instance().warning(
                "MisalignmentMetric: the detector found nothing. Check its score threshold."
            )
        bboxes = np.concatenate([r[1] for r in results]) if results else np.zeros((0, 4))
        precisions = [
            average_precision(
                coco,
                found.image_ids,
                bboxes,
                ranking,
                found.labels,
                categories,
                self.max_dets,
            )
            for ranking in (found.scores, found.overlaps)
        ]
        rows = [self._row(found, calibration, label) for label in range(len(classes))]
        for row, own, by_iou in zip(rows, *precisions):
            row.update(AP=own, AP_by_iou=by_iou, headroom=by_iou - own)
        kept = found[~found.ignored]
        metrics = score_iou_correlation(kept, self.min_iou)
        metrics.update(box_counts(kept, self.min_iou, self.error_iou))
        for key in ("laece", "AP", "AP_by_iou", "headroom"):
            metrics[key] = _mean([row[key] for row in rows])
        if self.classwise:
            for name, row in zip(classes, rows):
                metrics.update({f"{name}/{key}": value for key, value in row.items()})
        return metrics

    @staticmethod
    def _check_order(coco: COCO, classes: Sequence[str]) -> None:
        order = [c["name"] for c in coco.dataset["categories"] if c["name"] in classes]
        if order != list(classes):
            MMLogger.get_current_instance().warning(
                f"MisalignmentMetric: the annotation file lists the classes as {order}, the "
                f"dataset as {list(classes)}. Labels are taken in the dataset's order; mmdet's "
                "CocoDataset and CocoMetric give them in the file's."
            )

    @staticmethod
    def match(results: list, coco, categories: list, threshold: float) -> MatchedDetections:
        """Match the detections of all images at one IoU.

        Args:
            results: what :meth:`process` kept.
            coco: annotations.
            categories: category id of each class.
            threshold: least IoU of a match.
        """
        truth = GroundTruthByImage(coco, categories)
        return MatchedDetections.join(
            [match_image(r[0], *r[1:], *truth[r[0]], iou_threshold=threshold) for r in results]
        )

    def _row(self, found, calibration, label) -> dict[str, float]:
        own = found[(found.labels == label) & ~found.ignored]
        calibration = calibration[(calibration.labels == label) & ~calibration.ignored]
        return dict(
            **score_iou_correlation(own, self.min_iou),
            **box_counts(own, self.min_iou, self.error_iou),
            laece=localisation_aware_ece(calibration, self.bins),
        )


class GroundTruthByImage:
    """Boxes ``(G, 4)`` xyxy, class indices and crowd flags ``(G,)`` of an image, by its id."""

    def __init__(self, coco, categories: list) -> None:
        self.coco = coco
        self.labels = {category: label for label, category in enumerate(categories)}

    def __getitem__(self, image_id):
        if image_id not in self.coco.imgs:
            raise InputError(
                f"image {image_id!r} of the detections is not in the annotation file. Take the "
                "file of the split that was tested."
            )
        found = [a for a in self.coco.imgToAnns[image_id] if a["category_id"] in self.labels]
        boxes = np.array([a["bbox"] for a in found], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([self.labels[a["category_id"]] for a in found], np.int64)
        return boxes, labels, np.array([is_crowd(a) for a in found], bool)


def _mean(values) -> float:
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def _to_numpy(values) -> np.ndarray:
    values = getattr(values, "tensor", values)
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
