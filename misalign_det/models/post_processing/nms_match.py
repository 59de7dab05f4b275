"""Clusters of non-maximum suppression on the CPU: which kept box suppressed which.

In NumPy: a few thousand boxes are dozens of small operations, whose start costs several times less
there than in torch. CUDA tensors go another way, see ``on_device``.
"""

from functools import lru_cache
from importlib import import_module
from itertools import chain

import numpy as np
import torch

mmcv_nms = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

MIN_SWEEP = 512  # boxes; of fewer, mmcv's nms_match compares all pairs in less time
FEW_PAIRS = 16  # a box; with more, what the best boxes keep decides
COST_OF_PAIR = 2.5  # compared here, in pairs compared by nms_match
MAX_PAIRS = 4_000_000  # pairs looked at together; bounds the memory, about 200 MB


def suppressors(boxes: np.ndarray, iou_threshold: float, offset: int = 0) -> np.ndarray:
    """Greedy NMS: the kept box that suppressed each box.

    Args:
        boxes: xyxy in pixels, in descending order of score, ``(n, 4)`` in float32.
        iou_threshold: in (0, 1].
        offset: 0, or 1 where a box of one pixel has the coordinates ``(x, y, x, y)``.

    Returns:
        Index of each one's suppressor, its own for a kept box, ``(n,)``.
    """
    if len(boxes) < MIN_SWEEP:
        return _compare_all(boxes, iou_threshold, offset)
    corners = np.ascontiguousarray(boxes.T)
    center, reach = _reach(corners, iou_threshold, offset)
    order, low, high = _near_ranges(center[0], reach[0])
    pairs = int((high - low).sum()) / len(boxes)
    if pairs > FEW_PAIRS:
        # Greedy NMS of the best boxes is what NMS of all keeps of them.
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


def _compare_all(boxes, iou_threshold, offset):
    """By mmcv's ``nms_match``, an NMS that compares every kept box with all that are left."""
    num = len(boxes)
    if num == 0:
        return np.empty(0, np.int64)
    dets = np.empty((num, 5), np.float32)
    dets[:, :4] = boxes
    if offset:  # nms_match has none
        dets[:, 2:4] += offset
    dets[:, 4] = np.arange(num, 0, -1)
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
    """nms_match suppresses at its threshold too, nms above it only."""
    return float(np.nextafter(np.float32(iou_threshold), np.float32(2)))


def _reach(corners, iou_threshold, offset):
    """Twice the centres and twice how far each box reaches along x and y, ``(2, n)`` each.

    An IoU above t needs centres along x, and along y, within ``(1 - t) / (1 + t)`` of the mean
    extent: the sum of what both boxes reach.
    """
    # Rounding far from the origin (classes are told apart by a shift) stays inside the slack.
    slack = 2e-6 * float(np.abs(corners).max()) + 2e-3
    share = (1 - iou_threshold) / (1 + iou_threshold)
    reach = (corners[2:] - corners[:2] + offset) * share + slack
    return corners[2:] + corners[:2], reach


def _near_ranges(center, reach):
    """Pairs of boxes near each other along x, as ranges in the order of their left ends.

    Returns:
        Boxes in this order, ``(n,)``; and for each place in it the range of later places whose
        intervals begin before its own ends, ``(n,)`` and ``(n,)``.
    """
    start = center - reach
    order = start.argsort()
    end = np.maximum(center + reach, start)  # a box turned inside out meets none
    low = np.arange(1, len(order) + 1)
    return order, low, start.take(order).searchsorted(end.take(order), "right")


def _pairs(order, low, high, part):
    """Both boxes of every pair whose first one is in a part of the order."""
    low, count = low[part], high[part] - low[part]
    place = np.arange(count.sum()) + (low - count.cumsum() + count).repeat(count)
    return order[part].repeat(count), order.take(place)


def _overlapping(corners, first, second, iou_threshold, offset):
    """The pairs whose IoU exceeds the threshold: the better box of each, and the worse.

    In float32 and step by step as mmcv's ``nms``, so that both decide alike at the threshold
    (mmdet's ``bbox_overlaps`` bounds the union from below).

    Args:
        corners: xyxy in pixels, in descending order of score, ``(4, n)``.
        first, second: two boxes of each pair, either order, ``(E,)``.
        iou_threshold: a pair counts above it.
        offset: pixels added to each side, 0 or 1.
    """
    better, worse = np.minimum(first, second), np.maximum(first, second)
    a, b = corners.take(better, 1), corners.take(worse, 1)
    extent = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + offset
    inter = np.maximum(extent, 0).prod(0)
    area = (corners[2:] - corners[:2] + offset).prod(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # no area: as mmcv, 0 / 0 is no hit
        iou = inter / (area.take(better) + area.take(worse) - inter)
    (hit,) = (iou > np.float32(iou_threshold)).nonzero()
    return better.take(hit), worse.take(hit)


def _greedy(better, worse, num):
    """Greedy NMS on the pairs that overlap: the suppressor of each box, ``(n,)``.

    In rounds: undecided boxes without a better undecided one are kept, those that overlap them
    suppressed. A few rounds do, as many as suppression could pass from box to box.
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
    """Ranges of boxes with at most ``MAX_PAIRS`` pairs together (or one box)."""
    if counts.sum() <= MAX_PAIRS:
        return [slice(0, len(counts))]
    group = counts.cumsum() // MAX_PAIRS
    bounds = [0, *(np.flatnonzero(np.diff(group)) + 1), len(counts)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:])]
