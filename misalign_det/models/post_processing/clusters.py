"""Clusters of non-maximum suppression: which kept box suppressed which."""

import torch
from torch import Tensor

MAX_PAIRS = 4_000_000  # pairs looked at together; bounds the memory, about 100 MB


def suppressor_ranks(
    boxes: Tensor, kept: Tensor, others: Tensor, iou_threshold: float, offset: int = 0
) -> Tensor:
    """The first kept box that overlaps each other box by more than the threshold.

    Only pairs that can reach the threshold are compared: an IoU above t needs centres that lie
    within ``(1 - t) / (2 t)`` of the box's width and height of each other. Kept boxes sorted by
    their centre along x make these a range each.

    Args:
        boxes: xyxy, ``(n, 4)``.
        kept: indices of the kept boxes in order of score, ``(k,)``.
        others: indices of the suppressed ones, ``(m,)``.
        iou_threshold: in (0, 1].
        offset: 0, or 1 where a box of one pixel has the coordinates ``(x, y, x, y)``.

    Returns:
        Rank in ``kept`` of each one's suppressor, ``(m,)``; k where there is none.
    """
    num_kept = len(kept)
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    width, height = x2 - x1 + offset, y2 - y1 + offset
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    # The rounding of centres far from the origin (classes are told apart by a shift) stays inside
    # the slack.
    slack = 1e-6 * center_x.abs().max() + 1e-3
    reach = (1 - iou_threshold) / (2 * iou_threshold)
    kept_x, by_x = center_x[kept].sort()
    sorted_kept = kept[by_x]
    reach_x = width[others] * reach + slack
    first = torch.searchsorted(kept_x, center_x[others] - reach_x)
    last = torch.searchsorted(kept_x, center_x[others] + reach_x, right=True)
    counts = last - first
    ranks = torch.full_like(others, num_kept)
    for part in _parts(counts):
        mine = torch.arange(part.start, part.stop, device=boxes.device)
        mine = mine.repeat_interleave(counts[part])
        start = (counts[part].cumsum(0) - counts[part]).repeat_interleave(counts[part])
        place = torch.arange(len(mine), device=boxes.device) - start + first[mine]
        a, b = others[mine], sorted_kept[place]
        near = (center_y[a] - center_y[b]).abs() <= height[a] * reach + slack
        mine, place = mine[near], place[near]
        a, b = a[near], b[near]
        inter_x = torch.min(x2[a], x2[b]) - torch.max(x1[a], x1[b]) + offset
        inter_y = torch.min(y2[a], y2[b]) - torch.max(y1[a], y1[b]) + offset
        inter = inter_x.clamp(min=0) * inter_y.clamp(min=0)
        union = width[a] * height[a] + width[b] * height[b] - inter
        hit = inter > iou_threshold * union
        ranks.scatter_reduce_(0, mine[hit], by_x[place[hit]], "amin")
    return ranks


def _parts(counts: Tensor) -> list[slice]:
    """Ranges of boxes with at most ``MAX_PAIRS`` pairs together (or one box)."""
    if len(counts) == 0:
        return []
    total = counts.cumsum(0)
    if total[-1] <= MAX_PAIRS:
        return [slice(0, len(counts))]
    group = (total // MAX_PAIRS).tolist()
    bounds = [0] + [i for i in range(1, len(group)) if group[i] != group[i - 1]] + [len(group)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:])]
