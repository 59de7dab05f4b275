"""Classification and localisation loss of (location, GT) pairs.

Eq. 2 of `A Triple-head Network with Loss-aware Label Assignment for Object Detection`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....utils import has_triton, new_tensor_without_sync
from .candidates import BatchGroundTruth, CandidatePairs

_BLOCK = 2**17  # logits per block on the CPU, so that intermediate results stay in its cache
_MAX = torch.finfo(torch.float32).max


def focal_of_negatives(logits: Tensor, gamma: float) -> Tensor:
    """Focal loss of each logit as a negative, without alpha (Lin et al. 2017, eq. 5).

    ``-p^gamma log(1 - p) = sigmoid(x)^gamma softplus(x)`` with ``p = sigmoid(x)``. The loss of a
    logit ``x`` as a positive is this function at ``-x``.

    Args:
        logits: any shape.
        gamma: focusing parameter, at least 0.

    Returns:
        In nats, shaped like ``logits``; 0 at ``-inf``, ``inf`` at ``inf``, NaN at NaN.
    """
    return logits.sigmoid().pow_(gamma).mul_(F.softplus(logits))


def pair_classification_loss(
    pairs: CandidatePairs,
    logits: Tensor,
    gt_labels: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss of each pair, summed over classes, with the class of its GT as the target.

    No tensor of size P x G x C is made. The GT's class is left out of the sum over the negatives,
    not subtracted from it, which would cancel digits. An infinite logit is a probability of 0 or 1.

    Args:
        pairs: E pairs.
        logits: classification logits of all locations of the batch, ``(N * P, C)``.
        gt_labels: class index of each GT, ``(G,)``.
        alpha, gamma: of the focal loss.

    Returns:
        In nats, ``(E,)`` float32; ``inf`` where the loss has no bound, NaN where a logit is NaN.
    """
    if has_triton(logits):
        from .joint_loss_triton import pair_classification_loss as in_one_launch

        return in_one_launch(pairs, logits, gt_labels, alpha, gamma)
    labels = gt_labels[pairs.gt_inds]
    own_logit = logits[pairs.prior_inds, labels].float()
    # Either once per pair or once per location, whichever are fewer.
    if len(pairs) < len(logits):
        negative = _negatives_of_pairs(logits, pairs.prior_inds, labels, gamma)
    else:
        negative = _negatives_of_locations(logits, pairs.prior_inds, own_logit, gamma)
    return negative.mul_(1 - alpha).add_(focal_of_negatives(-own_logit, gamma), alpha=alpha)


def _negatives_of_pairs(logits: Tensor, prior_inds: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Sum of :func:`focal_of_negatives` over all classes but that of the pair's GT.

    Args:
        logits: ``(N * P, C)``.
        prior_inds: location of each pair, ``(E,)``.
        labels: class of each pair's GT, ``(E,)``.
        gamma: of the focal loss.

    Returns:
        In nats, ``(E,)`` float32.
    """
    size = _block_size(logits)
    sums = []
    for rows, own in zip(prior_inds.split(size), labels.split(size)):
        others = logits.index_select(0, rows).float().scatter_(1, own[:, None], -math.inf)
        sums.append(focal_of_negatives(others, gamma).sum(dim=1))
    return torch.cat(sums)


def _negatives_of_locations(
    logits: Tensor, prior_inds: Tensor, own_logit: Tensor, gamma: float
) -> Tensor:
    """The same as :func:`_negatives_of_pairs`, from two sums over the classes of each location.

    With ``l_c`` the loss of class c, the sum over all classes but k is ``sum_c l_c - l_k``. That
    cancels digits where ``l_k`` is most of the sum, which is so for at most one class of a
    location. There the second sum is used, over those ``l_c`` that are at most half of the first.

    Args:
        logits: ``(N * P, C)``.
        prior_inds: location of each pair, ``(E,)``.
        own_logit: logit of the class of each pair's GT, ``(E,)``.
        gamma: of the focal loss.

    Returns:
        In nats, ``(E,)`` float32.
    """
    totals, rests = [], []
    for rows in logits.split(_block_size(logits)):
        # An infinite loss becomes the largest number, so that inf - inf does not occur.
        losses = focal_of_negatives(rows.float(), gamma).clamp_(max=_MAX)
        total = losses.sum(dim=1)
        minor = torch.le(losses, (total / 2)[:, None], out=torch.empty_like(losses))
        totals.append(total)
        rests.append(minor.mul_(losses).sum(dim=1))
    total, rest = torch.cat(totals)[prior_inds], torch.cat(rests)[prior_inds]
    own = focal_of_negatives(own_logit, gamma).clamp_(max=_MAX)
    # 0.6 is more than half, with room for rounding. Doubling makes the largest number inf again.
    return torch.where(own > 0.6 * total, rest, total - own).mul_(2).div_(2)


def _block_size(logits: Tensor) -> int:
    """Rows per block; all of them on a GPU, where each block would cost a few launches."""
    num_rows, num_classes = logits.shape
    return max(1, num_rows if logits.is_cuda else _BLOCK // max(1, num_classes))


def pair_losses(
    pairs: CandidatePairs,
    logits: Tensor,
    bboxes: Tensor,
    gts: BatchGroundTruth,
    loss_bbox: nn.Module,
    focal_alpha: float = 0.25,
    focal_gamma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """``L_cls`` and ``L_reg`` of each pair, the two terms of eq. 2.

    Args:
        pairs: E pairs. Locations outside the GT box, whose loss is infinite in the equation, are
            not among them.
        logits: classification logits, ``(N * P, C)``.
        bboxes: predicted boxes, xyxy in pixels, ``(N * P, 4)``.
        gts: the batch's ground truths.
        loss_bbox: one of mmdet's box losses, called as ``loss_bbox(pred, target,
            reduction_override='none')``.
        focal_alpha, focal_gamma: of the focal loss.

    Returns:
        ``L_cls`` and ``L_reg``, ``(E,)`` float32 each.
    """
    cls_loss = pair_classification_loss(pairs, logits, gts.labels, focal_alpha, focal_gamma)
    predicted = bboxes.index_select(0, pairs.prior_inds).float()
    targets = gts.bboxes.index_select(0, pairs.gt_inds)
    with new_tensor_without_sync(predicted):
        reg_loss = loss_bbox(predicted, targets, reduction_override="none")
    return cls_loss, reg_loss.float()


def joint_loss(cls_loss: Tensor, reg_loss: Tensor, alpha: float = 1.0) -> Tensor:
    """``L_cls + alpha * L_reg`` of each pair (eq. 2), ``(E,)``."""
    return cls_loss.add(reg_loss, alpha=alpha)
