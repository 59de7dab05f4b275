"""Clusters of greedy NMS on the CPU: which kept box suppressed which (CL-balanced NMS).

In NumPy: for a few thousand boxes there are dozens of small operations, whose call overhead is
several times lower than in torch. CUDA tensors are clustered by :mod:`.nms_triton` or
:mod:`.nms_torch`.
"""

from functools import lru_cache
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np
import torch

mmcv_nms: Any = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

MIN_SWEEP = 512  # boxes; for fewer, comparing all pairs by mmcv's nms_match is faster
FEW_PAIRS = 16  # per box; with more, the number of kept boxes among the best decides
COST_OF_PAIR = 2.5  # time per pair here over the time per pair in nms_match
MAX_PAIRS = 4_000_000  # pairs compared at once; bounds the memory at about 200 MB


def suppressors(boxes: np.ndarray, iou_threshold: float, offset: int = 0) -> np.ndarray:
    """Greedy NMS: the index of the kept box that suppressed each box.

    Boxes are compared with their neighbours by a sweep along x, or all with all by mmcv's
    ``nms_match``, whichever is expected to be faster. Both give the same result.

    Args:
        boxes: xyxy in pixels, in descending order of score, ``(n, 4)`` in float32.
        iou_threshold: in (0, 1].
        offset: added to widths and heights, 0 or 1; with 1 a box of one pixel is ``(x, y, x, y)``.

    Returns:
        ``(n,)`` in int64; a kept box has its own index.
    """
    if len(boxes) < MIN_SWEEP:
        return _compare_all(boxes, iou_threshold, offset)
    corners = np.ascontiguousarray(boxes.T)
    center, reach = _reach(corners, iou_threshold, offset)
    order, low, high = _near_ranges(center[0], reach[0])
    pairs = int((high - low).sum()) / len(boxes)
    if pairs > FEW_PAIRS:
        # Greedy NMS of all boxes keeps of the best ones what greedy NMS of those alone keeps.
        best = _compare_all(boxes[: len(boxes) // 8], iou_threshold, offset)
        if pairs * COST_OF_PAIR > (best == np.arange(len(best))).sum():
            return _compare_all(boxes, iou_threshold, offset)
    found = []
    for part in _parts(high - low):
        first, second = _pairs(order, low, high, part)
        distance = np.abs(center[1].take(first) - center[1].take(second))
        (near,) = (distance <= reach[1].take(first) + reach[1].take(second)).nonzero()
        first, second = first.take(near), second.take(near)
        found.append(_overlapping(corners, first, second, iou_threshold, offset))
    better, worse = found[0] if len(found) == 1 else map(np.concatenate, zip(*found))
    return _greedy(better, worse, len(boxes))


def _compare_all(boxes: np.ndarray, iou_threshold: float, offset: int) -> np.ndarray:
    """By mmcv's ``nms_match``, which compares every kept box with all boxes that are left."""
    num = len(boxes)
    if num == 0:
        return np.empty(0, np.int64)
    dets = np.empty((num, 5), np.float32)
    dets[:, :4] = boxes
    if offset:  # nms_match has no such argument
        dets[:, 2:4] += offset
    dets[:, 4] = np.arange(num, 0, -1)
    # Not mmcv.ops.nms_match, which makes a tensor of each cluster.
    clusters = mmcv_nms.ext_module.nms_match(
        torch.from_numpy(dets), iou_threshold=_least_above(iou_threshold)
    )
    sizes = np.fromiter(map(len, clusters), np.int64, len(clusters))
    members = np.fromiter(chain.from_iterable(clusters), np.int64, num)
    suppressor = np.empty(num, np.int64)
    suppressor[members] = members.take(sizes.cumsum() - sizes).repeat(sizes)
    return suppressor


@lru_cache
def _least_above(iou_threshold: float) -> float:
    """The next float32: nms_match suppresses at its threshold too, nms only above it."""
    return float(np.nextafter(np.float32(iou_threshold), np.float32(2)))


def _reach(corners: np.ndarray, iou_threshold: float, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Twice the centres, and twice the reach of each box along x and y, ``(2, n)`` each.

    An IoU above t needs centres that are apart along x, and along y, by at most
    ``(1 - t) / (1 + t)`` of the mean extent. The reach of a box is its share of this distance.

    Args:
        corners: xyxy in pixels, ``(4, n)``.
    """
    # The slack covers rounding far from the origin, where batched_nms shifts the classes.
    slack = 2e-6 * float(np.abs(corners).max()) + 2e-3
    share = (1 - iou_threshold) / (1 + iou_threshold)
    reach = (corners[2:] - corners[:2] + offset) * share + slack
    return corners[2:] + corners[:2], reach


def _near_ranges(
    center: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of boxes whose intervals ``center +- reach`` along one axis intersect.

    Args:
        center, reach: ``(n,)``.

    Returns:
        ``(order, low, high)``, ``(n,)`` each: the boxes sorted by the start of their interval; the
        box ``order[i]`` is paired with ``order[low[i]:high[i]]``.
    """
    start = center - reach
    order = start.argsort()
    end = np.maximum(center + reach, start)  # a box of negative extent is paired with none
    low = np.arange(1, len(order) + 1)
    return order, low, start.take(order).searchsorted(end.take(order), "right")


def _pairs(
    order: np.ndarray, low: np.ndarray, high: np.ndarray, part: slice
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of :func:`_near_ranges` whose first box is in ``order[part]``, ``(E,)`` each."""
    low, count = low[part], high[part] - low[part]
    rank = np.arange(count.sum()) + (low - count.cumsum() + count).repeat(count)
    return order[part].repeat(count), order.take(rank)


def _overlapping(
    corners: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    iou_threshold: float,
    offset: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose IoU exceeds the threshold: the better box of each, and the worse one.

    In float32 with the same operations in the same order as mmcv's ``nms``, so that both decide
    alike at the threshold (mmdet's ``bbox_overlaps`` clamps the union).

    Args:
        corners: xyxy in pixels, in descending order of score, ``(4, n)``.
        first, second: the two boxes of each pair in either order, ``(E,)``.
        iou_threshold, offset: see :func:`suppressors`.
    """
    better, worse = np.minimum(first, second), np.maximum(first, second)
    a, b = corners.take(better, 1), corners.take(worse, 1)
    extent = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + offset
    inter = np.maximum(extent, 0).prod(0)
    area = (corners[2:] - corners[:2] + offset).prod(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 does not exceed it, as in mmcv
        iou = inter / (area.take(better) + area.take(worse) - inter)
    (hit,) = (iou > np.float32(iou_threshold)).nonzero()
    return better.take(hit), worse.take(hit)


def _greedy(better: np.ndarray, worse: np.ndarray, num: int) -> np.ndarray:
    """Greedy NMS on the overlapping pairs: the suppressor of each box, ``(num,)``.

    In each round the undecided boxes that no better undecided box overlaps are kept, and those that
    they overlap are suppressed. There are as many rounds as the longest chain of boxes of which
    each decides on the next: a few.

    Args:
        better, worse: the two boxes of each pair, ``(E,)``.
        num: number of boxes.
    """
    undecided = np.ones(num, bool)
    kept = np.zeros(num, bool)
    a, b = better, worse
    while len(a):
        first = undecided.copy()
        first[b] = False
        kept |= first
        undecided ^= first
        undecided[b[first.take(a)]] = False
        (left,) = (undecided.take(a) & undecided.take(b)).nonzero()
        a, b = a.take(left), b.take(left)
    kept |= undecided
    (by_kept,) = kept.take(better).nonzero()
    suppressor = np.arange(num)
    np.minimum.at(suppressor, worse.take(by_kept), better.take(by_kept))
    return suppressor


def _parts(counts: np.ndarray) -> list[slice]:
    """Ranges of boxes with about ``MAX_PAIRS`` pairs each, at least one box.

    Args:
        counts: pairs per box, ``(n,)``.
    """
    if counts.sum() <= MAX_PAIRS:
        return [slice(0, len(counts))]
    group = counts.cumsum() // MAX_PAIRS
    bounds = [0, *(np.flatnonzero(np.diff(group)) + 1), len(counts)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:])]
