"""Fitness, misalignment and the choice of levels (paper A, arXiv 2112.08902).

Pure functions of the classification and regression loss of (location, GT) pairs.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .candidates import CandidatePairs, TopCandidates, select_top_candidates

MAX_LEVELS = 16  # rows reserved a GT, so that no size has to be read from the device
FITNESS_MODES = ("sum", "softmax")


@dataclass
class LevelCandidates:
    """The K best in-box locations of each GT at each of L levels.

    Attributes:
        losses: ``L_cls + L_reg``, ascending, ``inf`` where absent, ``(G, L, K)``.
        pair_inds: place in the edge list, ``(G, L, K)``, any where absent.
        prior_inds: flat location index, ``(G, L, K)``, any where absent.
    """

    losses: Tensor
    pair_inds: Tensor
    prior_inds: Tensor


def level_of_priors(strides: Tensor) -> Tensor:
    """Level index of each location from its stride; locations come level by level, ``(P,)``."""
    changed = F.pad(strides[1:] != strides[:-1], (1, 0)) if len(strides) else strides
    return changed.cumsum(0, dtype=torch.long).clamp_(max=MAX_LEVELS - 1)


def candidates_per_level(
    edges: CandidatePairs, losses: Tensor, levels: Tensor, topk: int
) -> LevelCandidates:
    """The ``topk`` finite least-loss edges of each GT at each level.

    Args:
        edges: E edges over G ground truths.
        losses: ``L_cls + L_reg`` of each edge, ``(E,)``.
        levels: level index of each location, ``(P,)``.
        topk: K.
    """
    num_gts = len(edges.counts)
    # A (GT, level) pair takes the place of a GT: the same selection, grouped more finely.
    groups = edges.gt_inds * MAX_LEVELS + levels[edges.prior_inds % len(levels)]
    counts = groups.new_zeros(num_gts * MAX_LEVELS)
    counts.scatter_add_(0, groups, torch.ones_like(groups))
    top = select_top_candidates(CandidatePairs(edges.prior_inds, groups, counts), losses, topk)
    shape = (num_gts, MAX_LEVELS, topk)
    return LevelCandidates(
        top.losses.view(shape), top.pair_inds.view(shape), top.prior_inds.view(shape)
    )


def select_levels(losses: Tensor, num_levels: int) -> Tensor:
    """The levels of least mean loss over the candidates they have (paper A, l*).

    Args:
        losses: ``(G, L, K)``, ``inf`` where absent.
        num_levels: levels kept a GT.

    Returns:
        Level indices, ``(G, num_levels)``, best first. Levels without a candidate come last.
    """
    present = losses < float("inf")
    total = torch.where(present, losses, 0).sum(dim=-1)
    mean = total / present.sum(dim=-1)  # no candidate: 0 / 0, which is sorted to the end
    return mean.argsort(dim=1, stable=True)[:, :num_levels]


def gather_levels(candidates: LevelCandidates, chosen: Tensor) -> TopCandidates:
    """Join the candidates of the chosen levels, ``(G, num_levels)`` -> ``(G, num_levels * K)``."""
    index = chosen[..., None].expand(-1, -1, candidates.losses.shape[-1])
    losses, pair_inds, prior_inds = (
        part.gather(1, index).flatten(1)
        for part in (candidates.losses, candidates.pair_inds, candidates.prior_inds)
    )
    return TopCandidates(losses, prior_inds, losses < float("inf"), pair_inds)


def within_regress_range(points: Tensor, bboxes: Tensor, levels: Tensor, ranges: Tensor) -> Tensor:
    """Whether a pair's level regresses its distances, FCOS's static choice of levels, ``(E,)``.

    Args:
        points: location of each edge, ``(E, 2)`` in pixels.
        bboxes: GT box of each edge, xyxy, ``(E, 4)``.
        levels: level of each edge, ``(E,)``.
        ranges: least and largest of a level's longest distances in pixels, ``(L, 2)``.
    """
    distances = torch.cat([points - bboxes[:, :2], bboxes[:, 2:] - points], dim=1).amax(dim=1)
    low, high = ranges[levels].unbind(dim=-1)
    return (distances >= low) & (distances <= high)


def fitness(cls_loss: Tensor, reg_loss: Tensor, valid: Tensor, mode: str = "sum") -> tuple:
    """The two terms that fitness and misalignment are made of, on one scale.

    Args:
        cls_loss, reg_loss: ``(G, K)``.
        valid: ``(G, K)`` bool; the rest is not read.
        mode: ``'sum'``, the losses themselves; ``'softmax'``, the seed's wording: each task's
            losses turned into shares that sum to one over a GT's candidates.

    Returns:
        ``(classification, regression)`` terms, ``(G, K)``, 0 where invalid.
    """
    if mode == "sum":
        return torch.where(valid, cls_loss, 0), torch.where(valid, reg_loss, 0)
    if mode == "softmax":
        # A row without candidates has no softmax; its places are absent anyway.
        lowest = torch.finfo(cls_loss.dtype).min
        shares = (loss.masked_fill(~valid, lowest).softmax(dim=1) for loss in (cls_loss, reg_loss))
        return tuple(share.masked_fill(~valid, 0) for share in shares)
    raise ValueError(f"fitness must be one of {FITNESS_MODES}, not {mode!r}.")


def alignment_cost(cls_term: Tensor, reg_term: Tensor) -> Tensor:
    """``sqrt(S_f * S_m)``, ``S_f = L_cls + L_reg``, ``S_m = sigmoid(|L_cls - L_reg|)`` (paper A).

    Shapes: any, alike; the result is at least 0.
    """
    return ((cls_term + reg_term) * (cls_term - reg_term).abs().sigmoid()).clamp(min=0).sqrt()
