"""Predictions of a batch, its positive (location, GT) pairs, and the losses between them."""

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ...utils import new_tensor_without_sync
from ..losses import DCLoss
from ..task_modules.assigners.ambiguity import BatchAssignResult
from ..task_modules.assigners.candidates import BatchGroundTruth
from ..utils.multi_level import flatten_levels
from .float32_logits import at_least_float32


class DenseTargets:
    """Predictions of a batch beside the positive (location, GT) pairs that they are trained on.

    Every loss is averaged over the pairs by their weights and over all processes.

    Shapes: N images, P locations per image over all levels, C classes, E positive pairs. Boxes are
    xyxy in pixels. A location has the index ``image * P + location``.

    Args:
        logits: class logits of all locations, ``(N * P, C)``.
        bboxes: decoded boxes of all locations, ``(N * P, 4)``.
        assign_bboxes: the boxes that the assigner compared with the GTs, ``(N * P, 4)``.
        points: location centres, ``(P, 2)``.
        gts: the batch's ground truths.
        assign_result: from the assigner's ``assign_batch``.

    Attributes:
        prior_inds, weights, labels, gt_bboxes: location index ``(E,)``, loss weight ``(E,)``, class
            index ``(E,)`` and GT box ``(E, 4)`` of each positive pair.
        background: locations trained as background, ``(N * P,)`` bool.
        avg_factor: sum of the weights, averaged over all processes and at least 1, ``()``.
    """

    def __init__(
        self,
        logits: Tensor,
        bboxes: Tensor,
        assign_bboxes: Tensor,
        points: Tensor,
        gts: BatchGroundTruth,
        assign_result: BatchAssignResult,
    ) -> None:
        self.logits, self.bboxes, self.assign_bboxes = logits, bboxes, assign_bboxes
        self.points, self.assign_result = points, assign_result
        self.prior_inds, gt_inds, self.weights = assign_result.nonzero()
        self.labels, self.gt_bboxes = gts.labels[gt_inds], gts.bboxes[gt_inds]
        self.background = ~assign_result.ignored
        self.background[self.prior_inds] = False
        self.avg_factor = reduce_mean(self.weights.sum()).clamp(min=1)

    def classification_loss(self, loss: nn.Module, num_classes: int) -> Tensor:
        """Loss of every background location and every positive pair, ``()``.

        A location with several positive GTs contributes one weighted row for each. The target of a
        positive pair is 1 for its GT's class; for mmdet's ``QualityFocalLoss`` it is the IoU of
        the predicted box with the GT (Li et al., "Generalized Focal Loss", eq. 2).

        Args:
            loss: one of mmdet's sigmoid losses over class indices, or ``QualityFocalLoss``.
            num_classes: C, the label of background.
        """
        # All locations are rows, so that the device is not asked how many are background. One that
        # is not has weight 0 and the logit 0: its own might be infinite.
        background = self.background
        negatives = torch.where(background[:, None], self.logits, 0)
        logits = torch.cat([negatives, self.logits[self.prior_inds]])
        labels = torch.cat([self.labels.new_full((len(background),), num_classes), self.labels])
        weights = torch.cat([background.to(self.weights), self.weights])
        logits = at_least_float32(logits)  # Float32LogitsMixin says why
        target: Tensor | tuple[Tensor, Tensor] = labels
        if isinstance(loss.loss if isinstance(loss, DCLoss) else loss, QualityFocalLoss):
            ious = self.ious(self.bboxes)
            target = labels, torch.cat([ious.new_zeros(len(background)), ious])
        return loss(logits, target, weights, avg_factor=self.avg_factor)

    def box_losses(self, loss: nn.Module, bboxes: Tensor) -> Tensor:
        """Box loss of each positive pair, ``(E,)``.

        Args:
            loss: one of mmdet's losses over xyxy boxes.
            bboxes: predicted boxes of all locations, ``(N * P, 4)``.
        """
        predicted = bboxes[self.prior_inds]
        if len(predicted) == 0:  # an empty sum keeps every parameter in the graph
            return predicted.sum(dim=1)
        # Given the weights, mmdet's IoU losses would ask the device whether any is positive.
        with new_tensor_without_sync(predicted):
            return loss(predicted, self.gt_bboxes, reduction_override="none")

    def mean(self, losses: Tensor, pos_weights: Tensor | None = None) -> Tensor:
        """Mean of the positive pairs' losses by their weights, ``()``.

        Args:
            losses: ``(E,)``.
            pos_weights: further weights of the pairs, ``(E,)``.
        """
        weights, avg_factor = self.weights, self.avg_factor
        if pos_weights is not None:
            weights = weights * pos_weights
            avg_factor = reduce_mean(weights.sum()).clamp(min=1e-6)
        return weight_reduce_loss(losses, weights, "mean", avg_factor)

    def ious(self, bboxes: Tensor, mode: str = "iou") -> Tensor:
        """IoU of each positive pair's predicted box with its GT, ``(E,)``, without gradient.

        Args:
            bboxes: predicted boxes of all locations, ``(N * P, 4)``.
            mode: ``'iou'`` or ``'giou'``.
        """
        predicted = bboxes[self.prior_inds].detach()
        with new_tensor_without_sync(predicted):
            return bbox_overlaps(predicted, self.gt_bboxes, mode=mode, is_aligned=True)

    def iou_branch_loss(self, loss: nn.Module, iou_preds: list[Tensor], ious: Tensor) -> Tensor:
        """Loss of an IoU branch at the positive pairs, ``()``.

        Args:
            loss: mmdet's binary cross entropy.
            iou_preds: logits ``(N, 1, H, W)`` per level.
            ious: target of each pair in [0, 1], ``(E,)``.
        """
        logits = at_least_float32(flatten_levels(iou_preds).flatten()[self.prior_inds])
        if len(logits) == 0:
            return logits.sum()
        return loss(logits, ious, self.weights, avg_factor=self.avg_factor)

    def centerness(self) -> Tensor:
        """FCOS's centerness of each positive pair's location in its GT, ``(E,)`` in [0, 1]."""
        location = self.points[self.prior_inds % len(self.points)]
        top_left, bottom_right = self.gt_bboxes.split(2, dim=1)
        near, far = location - top_left, bottom_right - location  # (E, 2), both positive
        return (torch.min(near, far) / torch.max(near, far)).prod(dim=1).sqrt()
