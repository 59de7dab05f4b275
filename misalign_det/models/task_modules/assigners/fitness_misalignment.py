"""Choice of levels, fitness and misalignment, from the two losses of (location, GT) pairs.

`Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object Detection`
(arXiv 2112.08902), as its authors' code does it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ....utils.validation import check_choice
from .candidates import CandidatePairs, TopCandidates, select_top_candidates

MAX_LEVELS = 16  # levels reserved per GT: their number is known only on the device
FITNESS_MODES = ("sum", "softmax")


@dataclass
class LevelCandidates:
    """The K best in-box locations of each GT on each of L levels.

    Absent entries come last, as in :class:`~.candidates.TopCandidates`.

    Attributes:
        losses: ``L_cls + L_reg``, ascending, ``inf`` where absent, ``(G, L, K)`` float32.
        pair_inds: index into :class:`~.candidates.CandidatePairs`, ``(G, L, K)``.
        prior_inds: flat location index, ``(G, L, K)``.
    """

    losses: Tensor
    pair_inds: Tensor
    prior_inds: Tensor


def level_of_priors(strides: Tensor) -> Tensor:
    """Level index of each location from its stride.

    Args:
        strides: of locations ordered by level, ``(P,)``. A new level begins where it changes.

    Returns:
        ``(P,)`` int64, at most ``MAX_LEVELS - 1``.
    """
    changed = F.pad(strides[1:] != strides[:-1], (1, 0)) if len(strides) else strides
    return changed.cumsum(0, dtype=torch.long).clamp_(max=MAX_LEVELS - 1)


def candidates_per_level(
    pairs: CandidatePairs, losses: Tensor, levels: Tensor, topk: int
) -> LevelCandidates:
    """The ``topk`` pairs of least finite loss of each GT on each level.

    Args:
        pairs: E pairs of G ground truths.
        losses: ``L_cls + L_reg`` of each pair, ``(E,)``.
        levels: level index of each location, ``(P,)``.
        topk: K.
    """
    num_gts = len(pairs.counts)
    # The same selection, with each (GT, level) in place of a GT.
    groups = pairs.gt_inds * MAX_LEVELS + levels[pairs.prior_inds % len(levels)]
    counts = groups.new_zeros(num_gts * MAX_LEVELS)
    counts.scatter_add_(0, groups, torch.ones_like(groups))
    top = select_top_candidates(CandidatePairs(pairs.prior_inds, groups, counts), losses, topk)
    shape = (num_gts, MAX_LEVELS, topk)
    return LevelCandidates(
        top.losses.view(shape), top.pair_inds.view(shape), top.prior_inds.view(shape)
    )


def select_levels(losses: Tensor, num_levels: int) -> Tensor:
    """The levels of least mean loss over the candidates they have, l* of the paper.

    Args:
        losses: ``(G, L, K)``, ``inf`` where absent.
        num_levels: levels kept per GT.

    Returns:
        Level indices, ``(G, num_levels)``, best first. Levels without a candidate come last.
    """
    present = losses < float("inf")
    total = torch.where(present, losses, 0).sum(dim=-1)
    mean = total / present.sum(dim=-1)  # no candidate: 0 / 0, which is sorted to the end
    return mean.argsort(dim=1, stable=True)[:, :num_levels]


def gather_levels(candidates: LevelCandidates, chosen: Tensor) -> TopCandidates:
    """Concatenate each GT's candidates of the chosen levels.

    Args:
        candidates: ``(G, L, K)``.
        chosen: level indices, ``(G, num_levels)``.

    Returns:
        ``(G, num_levels * K)``.
    """
    index = chosen[..., None].expand(-1, -1, candidates.losses.shape[-1])
    losses, pair_inds, prior_inds = (
        part.gather(1, index).flatten(1)
        for part in (candidates.losses, candidates.pair_inds, candidates.prior_inds)
    )
    return TopCandidates(losses, prior_inds, losses < float("inf"), pair_inds)


def within_regress_range(points: Tensor, bboxes: Tensor, levels: Tensor, ranges: Tensor) -> Tensor:
    """Whether the range of a pair's level holds its longest distance, as in FCOS.

    Args:
        points: location of each pair, ``(E, 2)`` in pixels.
        bboxes: GT box of each pair, xyxy in pixels, ``(E, 4)``.
        levels: level of each pair, ``(E,)``.
        ranges: least and largest distance to the farthest side of the box on each level, in pixels,
            both included, ``(L, 2)``.

    Returns:
        ``(E,)`` bool.
    """
    distances = torch.cat([points - bboxes[:, :2], bboxes[:, 2:] - points], dim=1).amax(dim=1)
    low, high = ranges[levels].unbind(dim=-1)
    return (distances >= low) & (distances <= high)


def fitness(
    cls_loss: Tensor, reg_loss: Tensor, valid: Tensor, mode: str = "sum"
) -> tuple[Tensor, Tensor]:
    """The classification and the regression term of fitness and misalignment.

    Args:
        cls_loss, reg_loss: ``(G, K)``.
        valid: which candidates exist, ``(G, K)`` bool.
        mode: ``'sum'``: the losses themselves; ``'softmax'``: the softmax of each loss over a GT's
            candidates, as a published summary words it.

    Returns:
        Both ``(G, K)``, 0 where not valid.

    Raises:
        ValueError: an unknown ``mode``.
    """
    check_choice("fitness", mode, FITNESS_MODES)
    if mode == "sum":
        return torch.where(valid, cls_loss, 0), torch.where(valid, reg_loss, 0)
    # Not -inf, of which a row without candidates would have a softmax of NaN.
    lowest = torch.finfo(cls_loss.dtype).min
    cls_share, reg_share = (
        loss.masked_fill(~valid, lowest).softmax(dim=1).masked_fill(~valid, 0)
        for loss in (cls_loss, reg_loss)
    )
    return cls_share, reg_share


def alignment_cost(cls_term: Tensor, reg_term: Tensor) -> Tensor:
    """``sqrt(S_f * S_m)``: fitness ``S_f`` times misalignment ``S_m``.

    ``S_f = L_cls + L_reg`` and ``S_m = sigmoid(|L_cls - L_reg|)``.

    Args:
        cls_term, reg_term: see :func:`fitness`; any shape, the same for both.

    Returns:
        At least 0, of that shape.
    """
    return ((cls_term + reg_term) * (cls_term - reg_term).abs().sigmoid()).clamp(min=0).sqrt()
