"""What the assigners of this package share: a batch interface, and mmdet's for one image."""

from abc import abstractmethod

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from ..choices import check_choice
from .ambiguity import PositiveEdges, one_gt_per_location
from .candidate_edges import BatchGroundTruth


class EdgeAssigner(BaseAssigner):
    """An assigner that reads predictions and decides on (location, GT) pairs.

    This package's heads call :meth:`assign_batch`, where a location may serve several GTs; any
    other head of mmdet that trains through an assigner calls :meth:`assign`.

    Args:
        score_format: what ``pred_instances.scores`` holds in :meth:`assign`: ``'logits'`` (RTMDet)
            or ``'probs'`` (YOLOX).
        prior_format: ``'point'``, ``(x, y)`` or ``(x, y, stride_x, stride_y)``, or ``'box'``, xyxy
            anchors whose centre is the location.
    """

    def __init__(self, score_format: str = "logits", prior_format: str = "point") -> None:
        check_choice("score_format", score_format, ("logits", "probs"))
        check_choice("prior_format", prior_format, ("point", "box"))
        self.score_format = score_format
        self.prior_format = prior_format

    @abstractmethod
    def assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> PositiveEdges:
        """Assign a whole batch at once, in float32 whatever autocast says.

        Args:
            points: location centres in pixels, level by level, ``(P, 2)``.
            strides: their strides, ``(P,)``, or ``None`` if the priors carry none.
            logits: ``(N, P, C)``.
            bboxes: predicted boxes, xyxy in pixels, ``(N, P, 4)``.
            gts: ground truths of the batch.
        """

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """mmdet's assigner interface, for one image and any head that trains through it.

        Args:
            pred_instances: ``priors`` ``(P, 2 or 4)``, ``scores`` ``(P, C)`` and ``bboxes``
                ``(P, 4)``.
            gt_instances: ``bboxes`` ``(G, 4)``, ``labels`` ``(G,)``.
            gt_instances_ignore: not used: the papers have no ignored regions.

        Returns:
            AssignResult with one GT a location. ``max_overlaps`` holds the IoU of the location's
            predicted box with its GT, and the attribute ``positive_edges`` the
            :class:`PositiveEdges`, where a location may have several.
        """
        priors, bboxes = pred_instances.priors, pred_instances.bboxes
        points, strides = self._points_and_strides(priors)
        scores = pred_instances.scores.float()
        logits = scores if self.score_format == "logits" else torch.logit(scores, eps=1e-6)
        gts = BatchGroundTruth.from_instances([gt_instances])
        edges = self.assign_batch(points, strides, logits[None], bboxes[None], gts)
        gt_inds = one_gt_per_location(edges, gts, [len(gts.bboxes)], len(points))
        return _to_assign_result(gt_inds, bboxes, gts, edges)

    def _points_and_strides(self, priors: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.prior_format == "box":
            return (priors[:, :2] + priors[:, 2:]) / 2, None
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else None


def _to_assign_result(
    gt_inds: Tensor, bboxes: Tensor, gts: BatchGroundTruth, edges: PositiveEdges
) -> AssignResult:
    num_gts = len(gts.bboxes)
    positive = gt_inds > 0
    labels = torch.full_like(gt_inds, -1)
    overlaps = bboxes.new_zeros(len(gt_inds), dtype=torch.float32)
    if num_gts:
        index = (gt_inds - 1).clamp(min=0)
        labels = torch.where(positive, gts.labels[index], labels)
        iou = bbox_overlaps(bboxes.float(), gts.bboxes[index], is_aligned=True)
        overlaps = torch.where(positive, iou, overlaps)
    result = AssignResult(num_gts, gt_inds, overlaps, labels=labels)
    result.positive_edges = edges
    return result
