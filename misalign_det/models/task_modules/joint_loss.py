"""Classification and localisation loss of (location, GT) pairs (paper B, eq. 2)."""

import torch.nn.functional as F
from torch import Tensor

from .candidate_edges import BatchGroundTruth, CandidateEdges

_LEAST_LOGIT = -80.0  # whose sigmoid is still a float32 with a logarithm


def focal_of_negatives(logits: Tensor, gamma: float) -> Tensor:
    """Focal loss of each logit as a negative, without alpha (Lin et al. 2017, eq. 5 but for it).

    ``-p^gamma log(1 - p) = sigmoid(x)^gamma softplus(x)``, in nats, shaped like ``logits``; that of
    a positive is the same of ``-x``.
    """
    return logits.sigmoid().pow_(gamma).mul_(F.softplus(logits))


def edge_classification_loss(
    edges: CandidateEdges,
    logits: Tensor,
    gt_labels: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Focal loss summed over classes, with the class of the edge's GT as the target.

    Only the GT's own class column and the sum over the negatives are gathered, so that nothing of
    size P x G x C exists.

    Args:
        edges: E edges.
        logits: classification logits of all locations of the batch, ``(N * P, C)``.
        gt_labels: ``(G,)``.

    Returns:
        ``(E,)`` in float32.
    """
    own_logit = logits[edges.prior_inds, gt_labels[edges.gt_inds]].float()
    # All locations, or those of the edges one by one, whichever are fewer.
    few = len(edges) < len(logits)
    rows = logits.index_select(0, edges.prior_inds) if few else logits
    background = _background_loss(rows.float(), gamma)
    background = background if few else background[edges.prior_inds]
    negative = background - focal_of_negatives(own_logit, gamma)
    # (1 - alpha) * the other classes + alpha * the GT's own
    return negative.lerp(focal_of_negatives(-own_logit, gamma), alpha)


def _background_loss(logits: Tensor, gamma: float) -> Tensor:
    """Sum over the classes of :func:`focal_of_negatives`, ``(n, C)`` -> ``(n,)``.

    By ``softplus(x) = x - log(sigmoid(x))``, which takes half the time and is exact but where the
    sigmoid, and with it the loss, is next to nothing.
    """
    logits = logits.clamp(min=_LEAST_LOGIT)
    prob = logits.sigmoid()
    entropy = logits.sub_(prob.log())
    return prob.pow_(gamma).mul_(entropy).sum(dim=1)


def edge_losses(
    edges: CandidateEdges,
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
    cls_loss = edge_classification_loss(edges, logits, gts.labels, focal_alpha, focal_gamma)
    predicted = bboxes.index_select(0, edges.prior_inds).float()
    targets = gts.bboxes.index_select(0, edges.gt_inds)
    reg_loss = loss_bbox(predicted, targets, reduction_override="none")
    return cls_loss, reg_loss


def joint_loss(cls_loss: Tensor, reg_loss: Tensor, alpha: float = 1.0) -> Tensor:
    """``L_cls + alpha * L_reg`` (paper B, eq. 2)."""
    return cls_loss.add(reg_loss, alpha=alpha)
