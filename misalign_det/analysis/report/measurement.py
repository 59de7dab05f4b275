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

A detection passes at most eight functions on its way to any figure, not counting conversions to
arrays, checks and the selection of rows: ``update``, ``match_image``, ``pairwise_iou``,
``_greedy_match``, ``compute``, ``join`` and two more, for AP ``average_precision`` and
``matched_boxes``, for the correlation ``_agreement`` and ``score_iou_correlation``. Two of them
return detections to another module: ``match_image`` and ``compute``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.structures import InstanceData
from torch import Tensor

from ...apis.detector import batches, ground_truth
from ...errors import InputError
from ...evaluation.coco_ap import load_annotations
from ...evaluation.coco_matching import MatchedDetections
from ...evaluation.dataset_annotations import annotations_of
from ...evaluation.score_alignment import ScoreAlignment
from ...utils import class_names
from ..dense_outputs import dense_head, read_outputs
from ..nms_comparison import check_order, configured_nms
from ..nms_regret import NMSRegret, boxes_before_nms, nms_threshold
from ..spatial_gap import SpatialGaps
from .worst_images import WorstImage, WorstImages


@dataclass
class Measurement:
    """The figures of one detector on one split.

    Attributes:
        metrics: overall and per class, as ``'class/figure'``; see
            :class:`~misalign_det.evaluation.score_alignment.ScoreAlignment`.
        classes: class names.
        detections: of all images, matched at IoU 0.5.
        regret: a row of :class:`~.nms_regret.NMSRegret` per kind of NMS; empty for detectors
            without a dense head, and then ``regret_missing`` says so.
        gaps: rows of :func:`~.spatial_gap.summarise_gaps`; empty where the head's boxes cannot be
            read per location, and then ``gaps_missing`` says why.
        worst: the images in which the detector's own NMS loses most.
        num_images: of the split.
    """

    metrics: dict[str, float]
    classes: tuple[str, ...]
    detections: MatchedDetections
    regret: list[dict[str, Any]] = field(default_factory=list)
    regret_missing: str = ""
    gaps: list[dict[str, Any]] = field(default_factory=list)
    gaps_missing: str = ""
    worst: list[WorstImage] = field(default_factory=list)
    num_images: int = 0


@torch.no_grad()
def measure(
    model: BaseDetector,
    cfg: Config,
    split: str = "val",
    suppressions: Sequence[Mapping[str, Any]] | None = None,
    num_worst: int = 6,
    progress: bool = True,
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
            CLBalancedNMS at the same threshold.
        num_worst: number of worst images to keep.
        progress: whether a progress bar is shown.

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
    num_images = 0
    for image in _predictions(model, head, dataset, loader):
        image_id = image.sample.img_id if ann_file else num_images  # ids may repeat without a file
        alignment.update(image_id, image.detections)
        outcomes = [regret.update(image_id, image.candidates, image.gts) for regret in regrets]
        if outcomes:
            gt_bboxes = image.gts.bboxes.numpy().astype(np.float64)
            worst.update(image.sample.img_path, gt_bboxes, outcomes[0])
        if not gaps_missing:
            try:
                gaps.update(*_per_location(head, image))
            except InputError as error:
                gaps_missing = str(error)
        num_images += 1
    result = alignment.compute()
    return Measurement(
        metrics=result.metrics(classwise=True),
        classes=classes,
        detections=result.detections,
        regret=[regret.compute() for regret in regrets],
        regret_missing=regret_missing,
        gaps=gaps.compute() if not gaps_missing else [],
        gaps_missing=gaps_missing,
        worst=worst.compute(),
        num_images=num_images,
    )


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
    balanced = dict(type="CLBalancedNMS", iou_threshold=nms_threshold(own))
    return suppressions or [own, balanced]


@dataclass
class _Prediction:
    """What a detector predicts on one image.

    Attributes:
        sample: of the dataloader, with the metainfo.
        gts: ``bboxes`` ``(G, 4)``, xyxy in pixels of the original image, and ``labels`` ``(G,)``.
        detections: ``bboxes``, ``scores`` and ``labels``, in the same pixels.
        candidates: the same before NMS; ``None`` without a dense head.
        outputs: of the dense head, for the whole batch.
        index: of the image in the batch.
    """

    sample: DetDataSample
    gts: InstanceData
    detections: InstanceData
    candidates: InstanceData | None
    outputs: Sequence[Any]
    index: int


def _predictions(
    model: BaseDetector, head: BaseDenseHead | None, dataset: BaseDataset, loader: Iterable[dict]
) -> Iterator[_Prediction]:
    """Run the network once per batch and give what it predicts image by image.

    Args:
        model: the detector.
        head: its dense head, or ``None`` where NMS is not compared.
        dataset, loader: from :func:`~misalign_det.apis.detector.batches`.
    """
    first = 0
    for batch in loader:
        samples = batch["data_samples"]
        outputs: Sequence[Any] = ()
        candidates: Sequence[InstanceData | None] = [None] * len(samples)
        if head is None:
            predicted = model.predict(batch["inputs"], samples, rescale=True)
            detections = [sample.pred_instances for sample in predicted]
        else:
            metas = [sample.metainfo for sample in samples]
            outputs = head(model.extract_feat(batch["inputs"]))
            detections = head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=True)
            candidates = boxes_before_nms(head, outputs, metas)
        for i, sample in enumerate(samples):
            check_order(dataset, first + i, sample.img_id)
            gts = ground_truth(dataset.get_data_info(first + i))
            yield _Prediction(sample, gts, detections[i], candidates[i], outputs, i)
        first += len(samples)


def _per_location(
    head: BaseDenseHead, image: _Prediction
) -> tuple[Tensor, Tensor, Tensor, Tensor, InstanceData, float]:
    """The arguments of :func:`~.spatial_gap.spatial_gaps` for an image.

    Raises:
        InputError: the boxes of the head cannot be read per location.
    """
    cls_scores, bbox_preds = image.outputs[:2]
    outputs = read_outputs(head, cls_scores, bbox_preds, image=image.index)
    factor = torch.tensor(image.sample.scale_factor, dtype=torch.float32)
    device = outputs.logits.device
    gts = InstanceData(
        bboxes=(image.gts.bboxes * factor.repeat(2)).to(device), labels=image.gts.labels.to(device)
    )
    points, strides = outputs.locations()
    return outputs.logits, outputs.bboxes, points, strides, gts, float(factor.prod().sqrt())
