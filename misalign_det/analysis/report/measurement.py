"""Everything the misalignment report says of one detector, from one pass over a split."""

from dataclasses import dataclass, field

import numpy as np
import torch
from mmdet.datasets.api_wrappers import COCO
from torch import nn

from ...apis.detector import batches, dense_predictor, ground_truth
from ...errors import InputError
from ...evaluation.coco_ap import average_precision, category_ids, load_annotations
from ...evaluation.coco_matching import MatchedDetections
from ...evaluation.dataset_annotations import annotations_of
from ...evaluation.misalignment_metric import MisalignmentMetric
from ...utils import class_names
from ..dense_outputs import dense_head, read_outputs
from ..nms_regret import (
    SuppressionOutcome,
    boxes_before_nms,
    nms_name,
    nms_threshold,
    summarise_regret,
    suppression_outcome,
)
from ..nms_study import check_place, plain_suppression
from ..spatial_gap import spatial_gaps, summarise_gaps

SHOWN_SCORE = 0.3  # pictures leave out boxes of a lower score


@dataclass
class Measurement:
    """The figures of one detector on one split.

    Attributes:
        metrics: of :class:`MisalignmentMetric`, classwise.
        classes: class names.
        detections: matched at IoU 0.5, of all images.
        regret: a row a suppression: ``nms``, its ``name``, ``AP``, ``AP_oracle``, and those of
            :func:`~.nms_regret.summarise_regret`; empty for detectors without a dense head, and
            then ``regret_missing`` says so.
        gaps: rows of :func:`~.spatial_gap.summarise_gaps`; empty where the head's boxes cannot be
            read location by location, and then ``gaps_missing`` says why.
        worst: images in which suppression lost most among boxes of a score of at least 0.3.
        num_images: of the split.
    """

    metrics: dict[str, float]
    classes: tuple[str, ...]
    detections: MatchedDetections
    regret: list[dict] = field(default_factory=list)
    regret_missing: str = ""
    gaps: list[dict] = field(default_factory=list)
    gaps_missing: str = ""
    worst: list["WorstImage"] = field(default_factory=list)
    num_images: int = 0


@dataclass
class WorstImage:
    """An image with kept boxes and the better ones that they suppressed.

    Attributes:
        path: of the image file.
        gt_bboxes: objects, xyxy in pixels of the file, ``(G, 4)``.
        kept, better: pairs of boxes, ``(m, 4)`` each.
        iou_lost: summed over the pairs.
    """

    path: str
    gt_bboxes: np.ndarray
    kept: np.ndarray
    better: np.ndarray
    iou_lost: float


def measure(
    model: nn.Module,
    cfg,
    split: str = "val",
    suppressions: list[dict] | None = None,
    num_worst: int = 6,
    progress: bool = True,
) -> Measurement:
    """Run a detector once over a split and relate its scores, boxes and locations.

    Memory grows by the kept boxes alone, some kilobytes an image.

    Args:
        model: a detector of mmdet's. What suppression costs and where the tasks peak is measured
            for one-stage detectors, the latter with sigmoid classification.
        cfg: mmengine's ``Config`` with the split's dataloader. Where its evaluator names an
            annotation file in COCO's format, the figures refer to that, as CocoMetric's; else to
            the objects that the dataset itself gives.
        split: ``'val'`` or ``'test'``.
        suppressions: values of ``test_cfg.nms`` to compare; by default the model's own and
            CLBalancedNMS at its threshold.
        num_worst: images to keep for a look.
        progress: whether a bar is shown.

    Raises:
        InputError: the split has no images, no object, classes that its annotations lack, or a
            sampler that shuffles.
    """
    ann_file = annotation_file(cfg, split)
    dataset, loader = batches(model, cfg, split, progress)
    if not len(dataset):
        raise InputError(f"the {split} split has no images.")
    coco = load_annotations(ann_file) if ann_file else annotations_of(dataset)
    category_ids(coco, dataset.metainfo["classes"])  # complains before the pass
    collected = _Collected(model, dataset, suppressions, num_worst, by_place=not ann_file)
    place = 0
    for batch in loader:
        place += collected.add(batch, place)
    return collected.result(coco)


def annotation_file(cfg, split: str) -> str | None:
    """The annotation file that the split's evaluator names, or ``None``: VOCMetric names none."""
    evaluators = cfg.get(f"{split}_evaluator") or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator.get("ann_file"):
            return evaluator["ann_file"]
    return None


class _Collected:
    """What is kept while images go by."""

    def __init__(self, model, dataset, suppressions, num_worst, by_place=False) -> None:
        self.model, self.dataset, self.by_place = model, dataset, by_place
        self.num_worst = num_worst
        self.samples, self.gaps, self.worst = [], [], []
        self.head, self.regret_missing, self.gaps_missing = None, "", ""
        self.suppressions = []
        try:
            self.head = dense_predictor(model)
            own = plain_suppression(model)
            balanced = dict(type="CLBalancedNMS", iou_threshold=nms_threshold(own))
            self.suppressions = suppressions or [own, balanced]
            dense_head(model)
        except InputError as error:
            self.gaps_missing = str(error)
            self.regret_missing = "" if self.suppressions else str(error)
        if not self.suppressions:
            self.head = None
        self.image_ids = [[] for _ in self.suppressions]
        self.outcomes = [[] for _ in self.suppressions]

    @torch.no_grad()
    def add(self, batch, place: int) -> int:
        samples = batch["data_samples"]
        ids = [self._image_id(sample, place + i) for i, sample in enumerate(samples)]
        if self.head is None:
            predicted = self.model.predict(batch["inputs"], samples, rescale=True)
            for image_id, sample in zip(ids, predicted):
                self._add_detections(image_id, sample.pred_instances)
            return len(samples)
        outputs = self.head(self.model.extract_feat(batch["inputs"]))
        metas = [sample.metainfo for sample in samples]
        found = self.head.predict_by_feat(*outputs, batch_img_metas=metas, rescale=True)
        candidates = boxes_before_nms(self.head, outputs, metas)
        for i, sample in enumerate(samples):
            truth = ground_truth(self.dataset.get_data_info(place + i))
            self._add_detections(ids[i], found[i])
            self._add_outcomes(ids[i], sample, candidates[i], truth)
            self._add_gaps(outputs, i, sample, truth)
        return len(samples)

    def _image_id(self, sample, place: int):
        """The image's id in the annotations; the sample must be that of its place."""
        check_place(self.dataset, place, sample.img_id)
        return place if self.by_place else sample.img_id

    def _add_detections(self, image_id, found) -> None:
        arrays = {k: found[k].cpu().numpy() for k in ("bboxes", "scores", "labels")}
        self.samples.append(dict(img_id=image_id, pred_instances=arrays))

    def _add_outcomes(self, image_id, sample, candidates, truth) -> None:
        gt = truth.bboxes.numpy().astype(np.float64), truth.labels.numpy()
        most = self.head.test_cfg.get("max_per_img")  # YOLOX has none: it keeps all
        for place, nms in enumerate(self.suppressions):
            outcome = suppression_outcome(
                candidates.bboxes, candidates.scores, candidates.labels, *gt, nms, most
            )
            self.outcomes[place].append(outcome)
            self.image_ids[place] += [image_id] * len(outcome.scores)
        self._add_worst(sample, self.outcomes[0][-1], gt[0])

    def _add_worst(self, sample, outcome, gt_bboxes) -> None:
        lost = np.nan_to_num(outcome.best_iou - outcome.iou)
        pairs = np.flatnonzero((lost > 0.05) & (outcome.scores >= SHOWN_SCORE))
        if len(pairs) == 0:
            return
        image = WorstImage(
            sample.img_path, gt_bboxes, outcome.bboxes[pairs], outcome.best_bboxes[pairs],
            float(lost[pairs].sum()),
        )  # fmt: skip
        self.worst = sorted([*self.worst, image], key=lambda w: -w.iou_lost)[: self.num_worst]

    def _add_gaps(self, outputs, i, sample, truth) -> None:
        if self.gaps_missing:
            return
        try:
            dense = read_outputs(self.head, *outputs[:2], image=i)
        except InputError as error:
            self.gaps_missing = str(error)
            return
        factor = torch.tensor(sample.scale_factor, dtype=torch.float32)
        device = dense.logits.device
        truth.bboxes = (truth.bboxes * factor.repeat(2)).to(device)
        truth.labels = truth.labels.to(device)
        points, strides = dense.locations()
        self.gaps += spatial_gaps(
            dense.logits, dense.bboxes, points, strides, truth, float(factor.prod().sqrt())
        )

    def result(self, coco: COCO) -> Measurement:
        classes = class_names(self.dataset.metainfo["classes"])
        metric = MisalignmentMetric(coco, classwise=True)
        metric.dataset_meta = dict(classes=classes)
        metric.process({}, self.samples)
        metrics = metric.compute_metrics(metric.results)
        categories = category_ids(coco, classes)
        return Measurement(
            metrics=metrics,
            classes=classes,
            detections=metric.match(metric.results, coco, categories, metric.min_iou),
            regret=[self._regret(i, coco, categories) for i in range(len(self.suppressions))],
            regret_missing=self.regret_missing,
            gaps=summarise_gaps(self.gaps) if not self.gaps_missing else [],
            gaps_missing=self.gaps_missing,
            worst=self.worst,
            num_images=len(self.samples),
        )

    def _regret(self, place: int, coco, categories) -> dict:
        outcome = SuppressionOutcome.join(self.outcomes[place])
        kept, best = (
            average_precision(
                coco, self.image_ids[place], boxes, outcome.scores, outcome.labels, categories
            )
            for boxes in (outcome.bboxes, outcome.best_bboxes)
        )
        nms = self.suppressions[place]
        row = dict(nms=nms, name=nms_name(nms), AP=_mean(kept), AP_oracle=_mean(best))
        return dict(row, **summarise_regret(outcome))


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
