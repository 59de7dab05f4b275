"""Triton kernels of CLBalancedNMS: greedy NMS, then eq. 6 and 7 (CL-balanced NMS) per cluster.

Every decision is that of the NumPy path. An IoU is compared with the threshold as if it had been
computed in float32 operation by operation: nothing is fused, and products that are exact in float64
replace the division, which Triton rounds differently. Equations 6 and 7 are computed in float64,
and rounded to float32 where the NumPy path rounds them.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ...utils import triton_support

BITS = 64  # boxes per word
CHUNK = 512  # ranks that a program processes at once
MIN_WORDS = 64  # 4,096 boxes: one compiled kernel serves all smaller numbers


def greedy_clusters(
    detections: Tensor, order: Tensor, iou_threshold: float, offset: int
) -> tuple[Tensor, Tensor]:
    """Greedy NMS, with one host-device synchronisation for the number of kept boxes.

    Args:
        detections: xyxy in pixels and score, contiguous, ``(N, 5)``.
        order: indices of the boxes to consider in descending order of score, ``(n,)`` in int64. The
            rank of a box is its position in this order.
        iou_threshold: in (0, 1].
        offset: added to widths and heights, 0 or 1; with 1 a box of one pixel is ``(x, y, x, y)``.

    Returns:
        ``(members, kept)``: one bit per pair, ``(n, ceil(n / 64))`` in int64, as many as in mmcv's
        nms, and the ranks of the kept boxes, ascending, ``(k,)`` in int32. In the row of a kept box
        the bits of the boxes that it suppressed are set; all other rows are undefined.
    """
    num = len(order)
    words = triton.cdiv(num, BITS)
    members = order.new_empty(num, words)
    within = order.new_empty(num)
    kept = order.new_empty(num, dtype=torch.int32)
    count = order.new_empty(1, dtype=torch.int32)
    threshold = np.float32(iou_threshold)
    following = np.nextafter(threshold, np.float32(2))
    triton_support.launch(
        _find_overlaps, (words, words), detections, order, members, within, num, words,
        float(threshold), float(following), float(offset), BITS=BITS, num_warps=8,
    )  # fmt: skip
    held = max(MIN_WORDS, triton.next_power_of_2(words))
    triton_support.launch(
        _suppress, (1,), members, within, kept, count, num, words, BITS=BITS, WORDS=held,
        num_warps=min(held // MIN_WORDS, 8),
    )  # fmt: skip
    return members, kept[: count.item()]


def best_of_clusters(
    detections: Tensor,
    order: Tensor,
    members: Tensor,
    kept: Tensor,
    gamma: float,
    sigma: float,
    closeness: str,
    output_score: str,
) -> tuple[Tensor, Tensor]:
    """Centre of each cluster (eq. 6) and its box of the largest selection score (eq. 7).

    Args:
        detections, order: see :func:`greedy_clusters`.
        members, kept: the result of :func:`greedy_clusters`.
        gamma, sigma, closeness, output_score: see :class:`~.cl_balanced_nms.CLBalancedNMS`.

    Returns:
        ``(index, score)`` of each cluster's best box, ``(k,)`` in int64 and float32.
    """
    index = order.new_empty(len(kept))
    score = detections.new_empty(len(kept), dtype=torch.float32)
    triton_support.launch(
        _choose, (len(kept),), detections, order, members, kept, index, score, len(order),
        members.shape[1], float(np.float32(gamma)), float(np.float32(sigma)),
        CLOSENESS=closeness, OUTPUT=output_score, BITS=BITS, CHUNK=CHUNK,
    )  # fmt: skip
    return index, score


@triton.jit
def _box(detections, index, there):
    """The corners of some boxes, 0 where ``there`` is false."""
    row = detections + index * 5
    x1 = tl.load(row, mask=there, other=0.0).to(tl.float32)
    y1 = tl.load(row + 1, mask=there, other=0.0).to(tl.float32)
    x2 = tl.load(row + 2, mask=there, other=0.0).to(tl.float32)
    y2 = tl.load(row + 3, mask=there, other=0.0).to(tl.float32)
    return x1, y1, x2, y2


@triton.jit(do_not_specialize=["num", "words"])
def _find_overlaps(
    detections, order, members, within, num, words, threshold, following, offset,
    BITS: tl.constexpr,
):  # fmt: skip
    """Which boxes of lower score each box overlaps: 64 boxes by 64, one bit per pair."""
    row_block = tl.program_id(0)
    column_block = tl.program_id(1)
    if column_block >= row_block:
        lane = tl.arange(0, BITS)
        a = row_block * BITS + lane
        b = column_block * BITS + lane
        there_a = a < num
        there_b = b < num
        ax1, ay1, ax2, ay2 = _box(detections, tl.load(order + a, mask=there_a, other=0), there_a)
        bx1, by1, bx2, by2 = _box(detections, tl.load(order + b, mask=there_b, other=0), there_b)
        area_a = (ax2 - ax1 + offset) * (ay2 - ay1 + offset)
        area_b = (bx2 - bx1 + offset) * (by2 - by1 + offset)
        left = tl.maximum(ax1[:, None], bx1[None, :])
        top = tl.maximum(ay1[:, None], by1[None, :])
        right = tl.minimum(ax2[:, None], bx2[None, :])
        bottom = tl.minimum(ay2[:, None], by2[None, :])
        width = tl.maximum(right - left + offset, 0.0)
        height = tl.maximum(bottom - top + offset, 0.0)
        inter = width * height
        union = area_a[:, None] + area_b[None, :] - inter
        # A quotient rounds to more than the threshold exactly where it exceeds the midpoint of the
        # threshold and the next float32; no quotient equals that midpoint.
        union_64 = union.to(tl.float64)
        hit = 2.0 * inter.to(tl.float64) > threshold * union_64 + following * union_64
        hit = hit & (union >= 0.0) & (b[None, :] > a[:, None]) & there_b[None, :]
        bit = lane.to(tl.int64)
        word = tl.sum(hit.to(tl.int64) << bit[None, :], axis=1)
        tl.store(members + a * words.to(tl.int64) + column_block, word, mask=there_a)
        if column_block == row_block:
            tl.store(within + a, word, mask=there_a)


@triton.jit(do_not_specialize=["num", "words"])
def _suppress(
    members, within, kept, count, num, words, BITS: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    """Greedy NMS by one program.

    The row of a kept box holds what it overlaps, and afterwards what it suppresses.
    """
    column = tl.arange(0, WORDS)
    suppressed = tl.zeros((WORDS,), tl.int64)
    stride = words.to(tl.int64)
    found = 0
    for block in range(0, words):
        here = tl.sum(tl.where(column == block, suppressed, 0), axis=0)
        later = (column >= block) & (column < words)  # earlier words are not read again
        for rank in range(block * BITS, tl.minimum(block * BITS + BITS, num)):
            if ((here >> (rank - block * BITS)) & 1) == 0:
                here |= tl.load(within + rank)
                row = members + rank * stride + column
                hits = tl.load(row, mask=later, other=0)
                tl.store(row, hits & ~suppressed, mask=later)
                suppressed |= hits
                tl.store(kept + found, rank)
                found += 1
    tl.store(count, found)


@triton.jit
def _cluster_part(detections, order, row, first, x1, y1, x2, y2, rank, num, BITS: tl.constexpr):
    """A range of ranks of one cluster, whose kept box is given.

    Returns:
        Whether each is a member, its score, and twice the shift of its centre from that of the kept
        box along x and y.
    """
    inside = rank < num
    word = tl.load(row + rank // BITS, mask=inside, other=0)
    member = (inside & (((word >> (rank % BITS)) & 1) != 0)) | (rank == first)
    box = detections + tl.load(order + rank, mask=member, other=0) * 5
    left = tl.load(box, mask=member, other=0.0).to(tl.float32) - x1
    top = tl.load(box + 1, mask=member, other=0.0).to(tl.float32) - y1
    right = tl.load(box + 2, mask=member, other=0.0).to(tl.float32) - x2
    bottom = tl.load(box + 3, mask=member, other=0.0).to(tl.float32) - y2
    own = tl.load(box + 4, mask=member, other=0.0).to(tl.float32)
    return member, own, (left + right).to(tl.float64), (top + bottom).to(tl.float64)


@triton.jit(do_not_specialize=["num", "words"])
def _choose(
    detections, order, members, kept, index, score, num, words, gamma, sigma,
    CLOSENESS: tl.constexpr, OUTPUT: tl.constexpr, BITS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One program per cluster: its centre (eq. 6), then its best selection score (eq. 7)."""
    cluster = tl.program_id(0)
    first = tl.load(kept + cluster)
    first_index = tl.load(order + first)
    x1, y1, x2, y2 = _box(detections, first_index, first_index >= 0)
    first_own = tl.load(detections + first_index * 5 + 4).to(tl.float32)
    row = members + first.to(tl.int64) * words
    begin = first // BITS * BITS
    lane = tl.arange(0, CHUNK)

    weights = tl.zeros((CHUNK,), tl.float64)
    sum_x = tl.zeros((CHUNK,), tl.float64)
    sum_y = tl.zeros((CHUNK,), tl.float64)
    for start in range(begin, num, CHUNK):
        member, own, x, y = _cluster_part(
            detections, order, row, first, x1, y1, x2, y2, start + lane, num, BITS
        )
        weight = tl.where(member, tl.exp((own - first_own).to(tl.float64)), 0.0)
        weights += weight
        sum_x += weight * x
        sum_y += weight * y
    total = tl.sum(weights, axis=0)
    middle_x = tl.sum(sum_x, axis=0) / total
    middle_y = tl.sum(sum_y, axis=0) / total

    width = (x2 - x1).to(tl.float64)
    height = (y2 - y1).to(tl.float64)
    diagonal = tl.maximum(tl.sqrt(width * width + height * height), 1e-6)
    best = tl.zeros((CHUNK,), tl.float32) - float("inf")
    best_rank = tl.zeros((CHUNK,), tl.int32) + first
    for start in range(begin, num, CHUNK):
        member, own, x, y = _cluster_part(
            detections, order, row, first, x1, y1, x2, y2, start + lane, num, BITS
        )
        x -= middle_x
        y -= middle_y
        distance = tl.sqrt(x * x + y * y) / (2.0 * diagonal)
        distance = distance.to(tl.float32).to(tl.float64)
        if CLOSENESS == "gaussian":
            ratio = distance / sigma
            closeness = tl.exp(-(ratio * ratio))
        elif CLOSENESS == "linear":
            closeness = 1.0 - distance
        else:
            closeness = distance
        selection = (own.to(tl.float64) + gamma * closeness).to(tl.float32)
        better = member & (selection > best)  # of equal scores the first counts
        best = tl.where(better, selection, best)
        best_rank = tl.where(better, start + lane, best_rank)
    peak = tl.max(best, axis=0)
    chosen = tl.min(tl.where(best == peak, best_rank, num), axis=0)
    chosen_index = tl.load(order + chosen)
    tl.store(index + cluster, chosen_index)
    if OUTPUT == "selection":
        shown = peak
    elif OUTPUT == "best":
        shown = first_own
    else:
        shown = tl.load(detections + chosen_index * 5 + 4).to(tl.float32)
    tl.store(score + cluster, shown)
