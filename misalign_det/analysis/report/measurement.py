"""The figures of the misalignment report on one detector, from one pass over a split.

The way of a detection from the network to the report:

1. :func:`measure` passes the detections of each image, as the head's ``predict_by_feat`` gives
   them, to ``ScoreAlignment.update``.
2. ``update`` calls ``match_image`` once. It computes the IoUs with the GTs once (``pairwise_iou``),
   matches at IoU 0.5 and at the calibration error's 0.1 (``_greedy_match``), and returns the
   detections matched at each; ``update`` keeps them.
3. ``ScoreAlignment.compute`` joins those of all images, passes them to each figure's function
   (``score_iou_correlation``, ``box_counts``, ``localisation_aware_ece``, ``average_precision``)
   and returns the figures and the joined detections: the report's tables and scatter plots.
4. The boxes before NMS and the head's outputs go the same way, per image through ``update`` and
   once through ``compute``: ``NMSRegret`` per kind of NMS, ``WorstImages``, ``SpatialGaps``.
5. ``Resampling`` computes the figures again on resamples of the images, for the intervals.

A detection passes at most eight functions on its way to any figure, not counting conversions to
arrays, checks and the selection of rows: ``update``, ``match_image``, ``pairwise_iou``,
``_greedy_match``, ``compute``, ``join`` and two more, for AP ``average_precision`` and
``matched_boxes``, for the correlation ``_agreement`` and ``score_iou_correlation``. Two of them
return detections to another module: ``match_image`` and ``compute``.
"""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors.base import BaseDetector
from mmengine.config import Config

from ...apis.detector import batches
from ...errors import InputError
from ...evaluation.coco_ap import load_annotations
from ...evaluation.coco_matching import MatchedDetections
from ...evaluation.dataset_annotations import annotations_of
from ...evaluation.score_alignment import ScoreAlignment
from ...utils import class_names
from ..dense_outputs import dense_head
from ..nms_comparison import configured_nms
from ..nms_regret import NMSRegret, balanced_nms, nms_name
from ..spatial_gap import SpatialGaps
from .predictions import Prediction, per_location, predictions
from .resampling import Resampled, Resampling
from .worst_images import WorstImage, WorstImages


@dataclass
class MeasuredImage:
    """An image of the split and its place in the detections.

    Attributes:
        path: of the image file.
        gt_bboxes: xyxy in pixels of the original image, ``(G, 4)``.
        gt_labels: class indices, ``(G,)``.
        first, end: rows of :attr:`Measurement.detections` that are of this image.
    """

    path: str
    gt_bboxes: np.ndarray
    gt_labels: np.ndarray
    first: int
    end: int


@dataclass
class Measurement:
    """The figures of one detector on one split.

    Attributes:
        metrics: overall and per class, as ``'class/figure'``; see
            :class:`~misalign_det.evaluation.score_alignment.ScoreAlignment`.
        classes: class names.
        detections: of all images, matched at IoU 0.5, ``(D,)``.
        bboxes: the same, xyxy in pixels of the original image, ``(D, 4)``.
        images: of the split, in its order.
        resampled: figures with draws, for intervals: those of
            :meth:`~.resampling.Resampling.alignment`; where NMS is measured ``regret``, the AP that
            the oracle would gain, and ``balanced``, the AP that CLBalancedNMS would gain over
            another NMS; where gaps are measured ``gap``, the median gap in strides.
        ann_file: the annotations in COCO's format, or ``''`` if the dataset's own objects count.
        score_thr: least score of a box, ``test_cfg.score_thr``; NaN where there is none.
        regret: a row of :class:`~.nms_regret.NMSRegret` per kind of NMS; empty for detectors
            without a dense head, and then ``regret_missing`` says so.
        gaps: rows of :func:`~.spatial_gap.summarise_gaps`; empty where the head's boxes cannot be
            read per location, and then ``gaps_missing`` says why.
        worst: the images in which the detector's own NMS loses most.
    """

    metrics: dict[str, float]
    classes: tuple[str, ...]
    detections: MatchedDetections
    bboxes: np.ndarray
    images: list[MeasuredImage]
    resampled: dict[str, Resampled]
    ann_file: str = ""
    score_thr: float = float("nan")
    regret: list[dict[str, Any]] = field(default_factory=list)
    regret_missing: str = ""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    gaps_missing: str = ""
    worst: list[WorstImage] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """Number of images of the split."""
        return len(self.images)


@torch.no_grad()
def measure(
    model: BaseDetector,
    cfg: Config,
    split: str = "val",
    suppressions: Sequence[Mapping[str, Any]] | None = None,
    num_worst: int = 6,
    progress: bool = True,
    resamples: int = 200,
) -> Measurement:
    """Run a detector once over a split and relate its scores, boxes and locations.

    Memory grows by the kept boxes only, some kilobytes per image.

    Args:
        model: one of mmdet's detectors in eval mode. NMS regret and spatial gaps are measured for
            one-stage detectors, the latter only with sigmoid classification.
        cfg: the config with the split's dataloader. Where the split's evaluator names an annotation
            file in COCO's format, the figures refer to that file, as CocoMetric's do; else to the
            objects of the dataset.
        split: ``'val'`` or ``'test'``.
        suppressions: values of ``test_cfg.nms`` to compare; by default the model's own and
            CLBalancedNMS with the same threshold and options.
        num_worst: number of worst images to keep.
        progress: whether a progress bar is shown.
        resamples: of the images, for intervals; 0 leaves the intervals out.

    Raises:
        InputError: the split has no images, no object, classes that its annotations lack, or a
            sampler that shuffles.
    """
    ann_file = annotation_file(cfg, split)
    dataset, loader = batches(model, cfg, split, progress)
    if not len(dataset):
        raise InputError(f"the {split} split has no images.")
    classes = class_names(dataset.metainfo["classes"])
    coco = load_annotations(ann_file) if ann_file else annotations_of(dataset)
    alignment = ScoreAlignment(coco, classes)
    regrets, gaps, worst = [], SpatialGaps(), WorstImages(num_worst)
    head, regret_missing, gaps_missing = None, "", ""
    try:
        nms_cfgs = _nms_to_compare(model, suppressions)
        head = dense_head(model, needs="nms")
        most = head.test_cfg.get("max_per_img")  # YOLOX has none: it keeps all
        regrets = [NMSRegret(nms, coco, classes, most) for nms in nms_cfgs]
        dense_head(model, needs="locations")
    except InputError as error:
        gaps_missing = str(error)
        regret_missing = "" if regrets else gaps_missing
    images: list[MeasuredImage] = []
    image_ids: list[int | str] = []
    for image in predictions(model, head, dataset, loader):
        # Ids may repeat without a file.
        image_id = image.sample.img_id if ann_file else len(images)
        image_ids.append(image_id)
        images.append(_measured_image(image, images[-1].end if images else 0))
        alignment.update(image_id, image.detections)
        outcomes = [regret.update(image_id, image.candidates, image.gts) for regret in regrets]
        if outcomes:
            worst.update(images[-1].path, images[-1].gt_bboxes, outcomes[0])
        if not gaps_missing:
            try:
                gaps.update(*per_location(head, image))
            except InputError as error:
                gaps_missing = str(error)
    result = alignment.compute()
    resampling = Resampling(coco, classes, resamples)
    resampled = resampling.alignment(result)
    if regrets:
        kept = resampling.ap(regrets[0].detections())
        resampled["regret"] = resampling.ap(regrets[0].detections(oracle=True)) - kept
        for regret in regrets[1:]:
            if nms_name(regret.nms) == "CLBalancedNMS":
                resampled["balanced"] = resampling.ap(regret.detections()) - kept
    if not gaps_missing:
        resampled["gap"] = resampling.median(dict(zip(image_ids, gaps.per_image())))
    return Measurement(
        metrics=result.metrics(classwise=True),
        classes=classes,
        detections=result.detections,
        bboxes=result.bboxes,
        images=images,
        resampled=resampled,
        ann_file=str(ann_file or ""),
        score_thr=_score_threshold(model),
        regret=[regret.compute() for regret in regrets],
        regret_missing=regret_missing,
        gaps=gaps.compute() if not gaps_missing else [],
        gaps_missing=gaps_missing,
        worst=worst.compute(),
    )


def _measured_image(image: Prediction, first: int) -> MeasuredImage:
    return MeasuredImage(
        path=osp.abspath(image.sample.img_path),
        gt_bboxes=image.gts.bboxes.numpy().astype(np.float64),
        gt_labels=image.gts.labels.numpy(),
        first=first,
        end=first + len(image.detections),
    )


def _score_threshold(model: BaseDetector) -> float:
    """``score_thr`` of the last stage's ``test_cfg``, NaN without one."""
    test_cfg = model.test_cfg or {}
    return float((test_cfg.get("rcnn") or test_cfg).get("score_thr", float("nan")))


def annotation_file(cfg: Config, split: str) -> str | None:
    """The annotation file that the split's evaluator names, or ``None``: VOCMetric names none."""
    evaluators = cfg.get(f"{split}_evaluator") or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator.get("ann_file"):
            return evaluator["ann_file"]
    return None


def _nms_to_compare(
    model: BaseDetector, suppressions: Sequence[Mapping[str, Any]] | None
) -> Sequence[Mapping[str, Any]]:
    own = configured_nms(model)
    return suppressions or [own, balanced_nms(own)]
