"""Clusters of non-maximum suppression: which kept box suppressed which.

In NumPy: a few thousand boxes are dozens of small operations, whose start costs several times less
there than in torch; boxes on a GPU come over in one copy.
"""

import numpy as np

MAX_PAIRS = 4_000_000  # pairs looked at together; bounds the memory, about 100 MB


def suppressor_ranks(
    boxes: np.ndarray, kept: np.ndarray, others: np.ndarray, iou_threshold: float, offset: int = 0
) -> np.ndarray:
    """The first kept box that overlaps each other box by more than the threshold.

    Only pairs that can reach the threshold are compared: an IoU above t needs centres that lie
    along x within ``(1 - t) / (2 t)`` of the box's width of each other. Kept boxes sorted by their
    centre make these a range each; of these, those that overlap along y are left.

    Args:
        boxes: xyxy in pixels, ``(n, 4)``.
        kept: indices of the kept boxes in order of score, ``(k,)``.
        others: indices of the suppressed ones, ``(m,)``.
        iou_threshold: in (0, 1].
        offset: 0, or 1 where a box of one pixel has the coordinates ``(x, y, x, y)``.

    Returns:
        Rank in ``kept`` of each one's suppressor, ``(m,)``; k where there is none.
    """
    ranks = np.full(len(others), len(kept))
    columns = np.ascontiguousarray(boxes.T)
    a, b = columns[:, others], columns[:, kept]
    reach = (1 - iou_threshold) / (2 * iou_threshold)
    # Rounding far from the origin (classes are told apart by a shift) stays inside the slack.
    slack = 1e-6 * float(np.abs(columns[2]).max(initial=0)) + 1e-3
    center, kept_center = (a[0] + a[2]) / 2, (b[0] + b[2]) / 2
    width = (a[2] - a[0] + offset) * reach + slack
    by_x = kept_center.argsort()
    b, kept_center = b[:, by_x], kept_center[by_x]
    first = kept_center.searchsorted(center - width)
    counts = kept_center.searchsorted(center + width, "right") - first
    for part in _parts(counts):
        count = counts[part]
        mine = np.repeat(np.arange(part.start, part.stop), count)
        place = np.arange(len(mine)) + np.repeat(first[part] - count.cumsum() + count, count)
        mine, place = _overlapping(a, b, mine, place, iou_threshold, offset)
        if len(mine):
            starts = np.flatnonzero(np.diff(mine, prepend=-1))
            ranks[mine[starts]] = np.minimum.reduceat(by_x[place], starts)
    return ranks


def _overlapping(a, b, mine, place, iou_threshold, offset):
    """The pairs whose IoU exceeds the threshold; overlap along y, the cheap half, goes first."""
    low = np.maximum(a[1][mine], b[1][place])
    tall = np.minimum(a[3][mine], b[3][place]) - low + offset
    near = np.flatnonzero(tall > 0)
    mine, place, tall = mine[near], place[near], tall[near]
    x = np.minimum(a[2][mine], b[2][place]) - np.maximum(a[0][mine], b[0][place]) + offset
    inter = np.maximum(x, 0) * tall
    areas = [(part[2] - part[0] + offset) * (part[3] - part[1] + offset) for part in (a, b)]
    union = areas[0][mine] + areas[1][place] - inter
    hit = np.flatnonzero(inter > np.float32(iou_threshold) * union)
    return mine[hit], place[hit]


def _parts(counts: np.ndarray) -> list[slice]:
    """Ranges of boxes with at most ``MAX_PAIRS`` pairs together (or one box)."""
    if counts.sum() <= MAX_PAIRS:
        return [slice(0, len(counts))]
    group = counts.cumsum() // MAX_PAIRS
    bounds = [0, *(np.flatnonzero(np.diff(group)) + 1), len(counts)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:])]
