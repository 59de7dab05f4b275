"""A detector with its NMS inside, by ONNX's NonMaxSuppression."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmcv.ops import nms
from mmdet.models.detectors import SingleStageDetector
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor, nn

from ...errors import InputError
from .detector_graph import DetectorGraph, Level

_READ = {"type", "iou_threshold", "class_agnostic", "split_thr"}  # keys of test_cfg.nms


class Candidates(NamedTuple):
    """What reaches NMS, a fixed number per level.

    Attributes:
        boxes: xyxy in pixels of the input, ``(B, M, 4)``.
        scores: ``(B, M)``, -1 for what ``test_cfg`` leaves out.
        labels: ``(B, M)``.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class NMSGraph(nn.Module):
    """Images to detections: :class:`DetectorGraph`, then selection, NMS and box voting as mmdet's.

    Of ``test_cfg`` it reads ``score_thr``, ``nms_pre``, ``min_bbox_size``, ``max_per_img``, ``nms``
    of type ``'nms'`` and ``box_voting``.

    Args:
        model: see :class:`DetectorGraph`.

    Raises:
        InputError: as :class:`DetectorGraph`; or the NMS cannot be part of the graph.

    Shapes: ``(B, 3, H, W)`` -> detections ``(B, K, 5)``, boxes xyxy in pixels of the input and
    scores in descending order, and labels ``(B, K)``; K is ``max_per_img``. Where an image has
    less detections, the rest are zeros, with the label -1.
    """

    def __init__(self, model: SingleStageDetector) -> None:
        super().__init__()
        self.graph = DetectorGraph(model)
        cfg: Mapping[str, Any] = self.graph.head.test_cfg or {}
        check_nms(cfg)
        self.score_thr = cfg.get("score_thr") or 0
        self.nms_pre = cfg.get("nms_pre") or -1
        self.min_bbox_size = cfg.get("min_bbox_size", -1)
        self.max_per_img = cfg["max_per_img"]
        self.iou_threshold = cfg["nms"]["iou_threshold"]
        self.class_agnostic = cfg["nms"].get("class_agnostic", False)
        self.voting = cfg.get("box_voting")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        batch = images.shape[0]
        found = [self.candidates(level, batch) for level in self.graph.levels(images)]
        boxes, scores, labels = (torch.cat(part, dim=1) for part in zip(*found))
        apart = boxes
        if not self.class_agnostic:
            # As mmcv's batched_nms: boxes of different classes are moved apart.
            kept = boxes.masked_fill((scores < 0)[..., None], 0.0)
            apart = boxes + (labels * (kept.flatten(1).amax(dim=1, keepdim=True) + 1))[..., None]
        chosen = NonMaxSuppression.apply(apart, scores, self.max_per_img, self.iou_threshold)
        slots = self._by_image(chosen, images)
        empty, index = slots < 0, slots.clamp(min=0)
        top_boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        top_scores, top_labels = scores.gather(1, index), labels.gather(1, index)
        if self.voting is not None:
            candidates = Candidates(boxes, scores, labels)
            top_boxes = voted(top_boxes, top_labels, candidates, **self.voting)
        detections = torch.cat([top_boxes, top_scores[..., None]], dim=-1)
        return detections.masked_fill(empty[..., None], 0.0), top_labels.masked_fill(empty, -1)

    def candidates(self, level: Level, batch: int) -> Candidates:
        """What mmdet lets through to NMS of one level.

        Args:
            level: predictions of the level.
            batch: B.
        """
        num_classes = level.scores.shape[-1]
        selecting = level.class_scores.reshape(batch, -1)
        if 0 < self.nms_pre < 100_000:  # a larger one excludes nothing
            # Padded, so that there are always nms_pre.
            padding = selecting.new_full((1, self.nms_pre), -1.0).expand(batch, -1)
            values, index = torch.cat([selecting, padding], dim=1).topk(self.nms_pre, dim=1)
            index = index.masked_fill(values < 0, 0)
        else:
            values = selecting
            index = torch.arange(selecting.shape[1], device=values.device).expand(batch, -1)
        location = index.div(num_classes, rounding_mode="floor")
        boxes = level.boxes.gather(1, location[..., None].expand(-1, -1, 4))
        scores = level.scores.reshape(batch, -1).gather(1, index)
        valid = values > max(self.score_thr, 0)
        if self.min_bbox_size >= 0:
            sizes = boxes[..., 2:] - boxes[..., :2]
            valid = valid & (sizes > 0).all(dim=-1)
        return Candidates(boxes, scores.masked_fill(~valid, -1.0), index - location * num_classes)

    def _by_image(self, chosen: Tensor, images: Tensor) -> Tensor:
        """Rows (image, class, index) in order of image and score -> indices ``(B, K)``, or -1."""
        image, index = chosen[:, 0], chosen[:, 2]
        numbers = torch.arange(images.shape[0], device=chosen.device)
        counts = (image[None] == numbers[:, None]).long().sum(dim=1)
        firsts = counts.cumsum(dim=0) - counts
        place = torch.arange(chosen.shape[0], device=chosen.device) - firsts[image]
        slots = torch.full((1, self.max_per_img), -1, device=chosen.device)
        slots = slots.repeat(images.shape[0], 1)
        return slots.index_put((image, place), index)


class NonMaxSuppression(torch.autograd.Function):
    """Boxes ``(B, M, 4)`` and scores ``(B, M)``, negative for none -> ONNX's rows ``(R, 3)``."""

    @staticmethod
    def forward(
        ctx: Any, boxes: Tensor, scores: Tensor, max_per_img: int, iou_threshold: float
    ) -> Tensor:
        rows = []
        for number, (own, ranks) in enumerate(zip(boxes, scores)):
            there = (ranks > 0).nonzero().squeeze(1)
            if len(there):
                kept = nms(own[there], ranks[there], iou_threshold)[1][:max_per_img]
                index = there[kept]
                rows.append(torch.stack([torch.full_like(index, number), index * 0, index], dim=1))
        return torch.cat(rows) if rows else boxes.new_zeros(0, 3, dtype=torch.int64)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, max_per_img: int, iou_threshold: float) -> Any:
        def constant(value: float, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        return g.op(
            "NonMaxSuppression",
            boxes,
            g.op("Unsqueeze", scores, constant(1, torch.int64)),
            constant(max_per_img, torch.int64),
            constant(iou_threshold, torch.float32),
            constant(0, torch.float32),
        )


def voted(
    bboxes: Tensor,
    labels: Tensor,
    candidates: Candidates,
    sigma: float = 0.025,
    iou_threshold: float = 0.01,
) -> Tensor:
    """:func:`~misalign_det.models.post_processing.box_voting.box_voting` of a batch.

    Args:
        bboxes, labels: what NMS kept, ``(B, K, 4)`` and ``(B, K)``.
        candidates: what reached it.
        sigma, iou_threshold: see that function.

    Returns:
        ``(B, K, 4)``.
    """
    ious = bbox_overlaps(bboxes, candidates.boxes)
    same = labels[..., None] == candidates.labels[:, None]
    votes = (ious > iou_threshold) & same & (candidates.scores >= 0)[:, None]
    weights = candidates.scores[:, None].double() * torch.exp((1 - ious.double()) ** 2 / -sigma)
    weights = weights.masked_fill(~votes, 0.0)
    total = weights.sum(dim=-1, keepdim=True)
    means = torch.bmm(weights, candidates.boxes.double()) / total.clamp(min=1e-300)
    return torch.where(total > 0, means, bboxes.double()).to(bboxes.dtype)


def check_nms(cfg: Mapping[str, Any]) -> None:
    """Refuse a ``test_cfg`` whose NMS cannot be part of the graph.

    Args:
        cfg: the head's.

    Raises:
        InputError: with the reason and what to do.
    """
    instead = "Export without --nms: its outputs are what that NMS takes."
    options = cfg.get("nms") or {}
    kind = str(options.get("type", "nms")).rpartition(".")[2]
    if not options or kind != "nms":
        raise InputError(f"test_cfg.nms={kind if options else None} has no form in ONNX. {instead}")
    unread = sorted(set(options) - _READ)
    if unread:
        raise InputError(f"test_cfg.nms.{unread[0]} has no form in ONNX. {instead}")
    if cfg.get("min_bbox_size", -1) > 0:
        raise InputError(
            "test_cfg.min_bbox_size counts pixels of the image before resizing, which the graph "
            f"does not know; it takes 0. {instead}"
        )
    if not 0 < (cfg.get("max_per_img") or 0) < 100_000:
        raise InputError("--nms needs test_cfg.max_per_img, the number of detections per image.")
