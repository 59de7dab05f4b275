"""Classification and localisation loss of (location, GT) pairs (paper B, eq. 2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ....utils import has_triton, new_tensor_without_sync
from .candidates import BatchGroundTruth, CandidatePairs

_BLOCK = 2**17  # logits taken at once on the CPU, so that what is made of them stays in its cache
_MAX = torch.finfo(torch.float32).max


def focal_of_negatives(logits: Tensor, gamma: float) -> Tensor:
    """Focal loss of each logit as a negative, without alpha (Lin et al. 2017, eq. 5 but for it).

    ``-p^gamma log(1 - p) = sigmoid(x)^gamma softplus(x)``, in nats, shaped like ``logits``; that of
    a positive is the same of ``-x``. 0 at ``-inf``, ``inf`` at ``inf``, NaN at NaN.
    """
    return logits.sigmoid().pow_(gamma).mul_(F.softplus(logits))


def pair_classification_loss(
    edges: CandidatePairs,
    logits: Tensor,
    gt_labels: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss summed over classes, with the class of the edge's GT as the target.

    Nothing of size P x G x C exists. The GT's own class is left out of the negatives, not taken off
    their sum, where it would cancel; an infinite logit is a probability of 0 or 1.

    Args:
        edges: E edges.
        logits: classification logits of all locations of the batch, ``(N * P, C)``.
        gt_labels: ``(G,)``.

    Returns:
        ``(E,)`` in float32; ``inf`` where the loss has no bound, NaN where a logit is NaN.
    """
    if has_triton(logits):
        from .joint_loss_triton import pair_classification_loss as in_one_launch

        return in_one_launch(edges, logits, gt_labels, alpha, gamma)
    labels = gt_labels[edges.gt_inds]
    own_logit = logits[edges.prior_inds, labels].float()
    # All locations, or those of the edges one by one, whichever are fewer.
    if len(edges) < len(logits):
        negative = _negatives_of_pairs(logits, edges.prior_inds, labels, gamma)
    else:
        negative = _negatives_of_locations(logits, edges.prior_inds, own_logit, gamma)
    return negative.mul_(1 - alpha).add_(focal_of_negatives(-own_logit, gamma), alpha=alpha)


def _negatives_of_pairs(logits: Tensor, prior_inds: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Sum of :func:`focal_of_negatives` over all classes but the edge's own.

    Args:
        logits: ``(N * P, C)``.
        prior_inds: location of each edge, ``(E,)``.
        labels: class of each edge's GT, ``(E,)``.
        gamma: of the focal loss.

    Returns:
        In nats, float32, ``(E,)``.
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
    """:func:`_negatives_of_pairs` by way of two sums over the classes of each location.

    With ``l_c`` the loss of class c, the sum over all classes but k is ``sum_c l_c - l_k``. That
    cancels where ``l_k`` makes up most of the sum, which it does for one class of a location at
    most; there the second sum, over the ``l_c`` of at most half of the first one, is read.

    Args:
        logits, prior_inds, gamma: as there.
        own_logit: of the class of each edge's GT, ``(E,)``.
    """
    totals, rests = [], []
    for rows in logits.split(_block_size(logits)):
        # An infinite loss counts as the largest number, so that another class's stays apart.
        losses = focal_of_negatives(rows.float(), gamma).clamp_(max=_MAX)
        total = losses.sum(dim=1)
        minor = torch.le(losses, (total / 2)[:, None], out=torch.empty_like(losses))
        totals.append(total)
        rests.append(minor.mul_(losses).sum(dim=1))
    total, rest = torch.cat(totals)[prior_inds], torch.cat(rests)[prior_inds]
    own = focal_of_negatives(own_logit, gamma).clamp_(max=_MAX)
    # More than half, with room for rounding. Twice the largest number is infinite again.
    return torch.where(own > 0.6 * total, rest, total - own).mul_(2).div_(2)


def _block_size(logits: Tensor) -> int:
    """Rows taken at once; all of them on a GPU, where each block is a few more launches."""
    num_rows, num_classes = logits.shape
    return max(1, num_rows if logits.is_cuda else _BLOCK // max(1, num_classes))


def pair_losses(
    edges: CandidatePairs,
    logits: Tensor,
    bboxes: Tensor,
    gts: BatchGroundTruth,
    loss_bbox,
    focal_alpha: float = 0.25,
    focal_gamma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """``L_cls`` and ``L_reg`` of each edge, the two terms of paper B's eq. 2.

    Args:
        edges: E edges; pairs outside the box are not in the list, which is the equation's
            infinite loss.
        logits: ``(N * P, C)``.
        bboxes: predicted boxes, xyxy in pixels, ``(N * P, 4)``.
        gts: the batch's ground truths.
        loss_bbox: one of mmdet's box losses, called as ``loss_bbox(pred, target,
            reduction_override='none')``.

    Returns:
        Two ``(E,)`` in float32.
    """
    cls_loss = pair_classification_loss(edges, logits, gts.labels, focal_alpha, focal_gamma)
    predicted = bboxes.index_select(0, edges.prior_inds).float()
    targets = gts.bboxes.index_select(0, edges.gt_inds)
    with new_tensor_without_sync(predicted):
        reg_loss = loss_bbox(predicted, targets, reduction_override="none")
    return cls_loss, reg_loss.float()


def joint_loss(cls_loss: Tensor, reg_loss: Tensor, alpha: float = 1.0) -> Tensor:
    """``L_cls + alpha * L_reg`` (paper B, eq. 2)."""
    return cls_loss.add(reg_loss, alpha=alpha)
