"""What each GT weighs in the loss, beside how many positives it has."""

from dataclasses import replace

import torch
from mmdet.utils import reduce_mean

from .ambiguity import BatchAssignResult


def reweight_per_gt(
    edges: BatchAssignResult, power: float, over_processes: bool = True
) -> BatchAssignResult:
    """Even out the weight of GTs with many and with few positives; their total stays.

    With ``W_g`` the summed weight of a GT's positives, its edges are multiplied by
    ``W_g ** -power``, then all edges by one factor that keeps their sum. The papers have nothing of
    the kind; candidates must lie in the box, so a small object has few of them, and where large and
    small ones are of different classes the small class hardly trains.

    Args:
        edges: the positives of a batch.
        power: 0 changes nothing, at 1 every GT has the same weight.
        over_processes: the total is that of the batches of all processes. There is one reduction,
            with positives and without, so every process must call this equally often. ``False``:
            that of ``edges`` alone, without a reduction.
    """
    totals = edges.weights.sum(dim=1, keepdim=True)
    balanced = edges.weights * totals.clamp(min=1e-6).pow(-power)
    sums = torch.stack([edges.weights.sum(), balanced.sum()])
    before, after = reduce_mean(sums) if over_processes else sums
    return replace(edges, weights=balanced * (before / after.clamp(min=1e-6)))
