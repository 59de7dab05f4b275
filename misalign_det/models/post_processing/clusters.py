"""Clusters of non-maximum suppression: which kept box suppressed which.

In NumPy: a few thousand boxes are dozens of small operations, whose start costs several times less
there than in torch; boxes on a GPU come over in one copy.
"""

from functools import lru_cache
from importlib import import_module
from itertools import chain

import numpy as np
import torch
from torch import Tensor

mmcv_nms = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

MIN_PART = 256  # boxes worth a call of their own
MAX_PAIRS = 4_000_000  # pairs looked at together; bounds the memory, about 100 MB


def nms_clusters(
    dets: Tensor, iou_threshold: float, offset: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy NMS, and the boxes that each kept box suppressed.

    Args:
        dets: boxes, xyxy in pixels, and their scores, ``(n, 5)`` in float32 on any device.
        iou_threshold, offset: as in ``mmcv.ops.nms``.

    Returns:
        Indices of the boxes, cluster by cluster in any order, inside a cluster in descending order
        of score and so the kept box first, ``(n,)``; and the clusters' sizes, ``(k,)``.
    """
    find = _clusters_by_match if dets.device.type == "cpu" else _clusters_by_overlap
    return find(dets, iou_threshold, offset)


def _clusters_by_match(dets, iou_threshold, offset):
    """mmcv's ``nms_match``, NMS that remembers whom it suppressed, part by part."""
    array = dets.numpy()
    if offset:  # nms_match has none
        array = array + np.float32([0, 0, offset, offset, 0])
    order, bounds = _separate_parts(array, iou_threshold)
    apart = len(bounds) > 2
    if apart:
        ascending = np.sort(array[:, 4])
        if (ascending[1:] == ascending[:-1]).any():  # equal scores fall as they do in the whole
            array = array.copy()
            array[:, 4] = -score_ranks(dets[:, 4])
        array = array.take(order, 0)
    parts = [array[first:last] for first, last in zip(bounds, bounds[1:])]
    threshold = _least_above(iou_threshold)
    clusters = list(chain.from_iterable(_match(part, threshold) for part in parts if len(part)))
    sizes = np.fromiter(map(len, clusters), np.int64, len(clusters))
    members = np.fromiter(chain.from_iterable(clusters), np.int64, len(array))
    if apart:
        members = order.take(members + np.repeat(bounds[:-1], list(map(len, parts))))
    return members, sizes


@lru_cache
def _least_above(iou_threshold: float) -> float:
    """nms_match suppresses at its threshold too, nms above it only."""
    return float(np.nextafter(np.float32(iou_threshold), np.float32(2)))


def score_ranks(scores: Tensor) -> np.ndarray:
    """Place of each score in descending order, ``(n,)``.

    By the very sort of mmcv's nms, which decides between equal scores.
    """
    ranks = np.empty(len(scores), np.int64)
    ranks[scores.sort(descending=True)[1].cpu().numpy()] = np.arange(len(scores))
    return ranks


def _clusters_by_overlap(dets, iou_threshold, offset):
    """NMS on the boxes' device, then a search for each one's suppressor on the host."""
    order = dets[:, 4].sort(descending=True)[1]  # as mmcv's nms: it decides between equal scores
    dets, order = dets[order], order.cpu().numpy()
    rank = torch.arange(len(dets), 0, -1, dtype=dets.dtype, device=dets.device)
    boxes = dets[:, :4].contiguous()
    kept = mmcv_nms.nms(boxes, rank, iou_threshold, offset)[1].cpu().numpy()
    others = np.setdiff1d(np.arange(len(boxes)), kept, assume_unique=True)
    ranks = suppressor_ranks(boxes.cpu().numpy(), kept, others, iou_threshold, offset)
    found = ranks < len(kept)
    members = np.concatenate([kept, others[found]])
    ranks = np.concatenate([np.arange(len(kept)), ranks[found]])
    by_cluster = members[ranks.argsort(kind="stable")]
    return order[by_cluster], np.bincount(ranks, minlength=len(kept))


def _match(dets: np.ndarray, iou_threshold: float) -> list[list[int]]:
    return mmcv_nms.ext_module.nms_match(torch.from_numpy(dets), iou_threshold=iou_threshold)


def _separate_parts(dets: np.ndarray, iou_threshold: float) -> tuple[np.ndarray | None, list[int]]:
    """Sets of a few hundred boxes or more none of which can suppress one of another.

    NMS compares all pairs, so parts are cheaper than the whole; classes told apart by a shift are
    such parts. An IoU above t needs centres along x within ``(1 - t) / (1 + t)`` of the mean width:
    intervals of that share of each box's width, around its centre, touch.

    Returns:
        Indices of the boxes, part by part, ``(n,)``, and where the parts begin, with n at the end.
        Of few boxes, which are one part, ``None`` for the indices.
    """
    num = len(dets)
    if num < 2 * MIN_PART:
        return None, [0, num]
    left, right = dets[:, 0], dets[:, 2]
    # Rounding far from the origin (classes are told apart by a shift) stays inside the slack.
    slack = 1e-6 * float(max(right.max(), -left.min())) + 1e-3
    twice_center = left + right
    twice_reach = (right - left) * ((1 - iou_threshold) / (1 + iou_threshold)) + 2 * slack
    start = twice_center - twice_reach
    order = start.argsort()
    reached = np.maximum.accumulate((twice_center + twice_reach).take(order))
    gaps = start.take(order[1:]) > reached[:-1]
    cuts = np.concatenate([gaps.nonzero()[0] + 1, [num]])
    chosen = cuts[cuts.searchsorted(np.arange(MIN_PART, num, MIN_PART))]
    return order, [0, *sorted({*chosen.tolist(), num})]


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
