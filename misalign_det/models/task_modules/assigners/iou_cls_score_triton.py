"""Additional positives by the IAC score in Triton; see :mod:`.iou_cls_score`.

The same decisions as :meth:`~.iou_cls_score.IoUClsScoreMixin._add_positives` makes in PyTorch, in
three launches: scores of all pairs, the best pairs of each GT, the best GT of each anchor. Import
it only where :func:`~misalign_det.utils.triton_support.has_triton` is true.

Kernels compare int64 keys: the bits of the score in the upper half, an index in the lower half, of
which the lower one wins a tie.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ....utils.triton_support import launch
from ...utils.bipartite_matching_triton import ascending_bits

NOTHING = -9_200_000_000_000_000_000  # less than the key of any finite score
BLOCK = 1024
_NOTHING, _LOW = tl.constexpr(NOTHING), tl.constexpr(0x7FFFFFFF)


# Number and addresses of pairs change with each image, and Triton would compile a variant of the
# kernel for each of their kinds.
@triton.jit(do_not_specialize=["prior_inds", "gt_inds", "num_pairs"])
def score_kernel(
    prior_inds, gt_inds, priors, gts, probabilities, assigned, keys, num_pairs,
    alpha, beta, threshold, center_distance, CENTERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Key of each pair, ``NOTHING`` where it must not be positive. ``BLOCK`` pairs per program."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = e < num_pairs
    prior = tl.load(prior_inds + e, mask=inside, other=0)
    gt = tl.load(gt_inds + e, mask=inside, other=0)
    left, top = tl.load(priors + prior * 4), tl.load(priors + prior * 4 + 1)
    right, bottom = tl.load(priors + prior * 4 + 2), tl.load(priors + prior * 4 + 3)
    gt_left, gt_top = tl.load(gts + gt * 4), tl.load(gts + gt * 4 + 1)
    gt_right, gt_bottom = tl.load(gts + gt * 4 + 2), tl.load(gts + gt * 4 + 3)
    width = tl.maximum(tl.minimum(right, gt_right) - tl.maximum(left, gt_left), 0.0)
    height = tl.maximum(tl.minimum(bottom, gt_bottom) - tl.maximum(top, gt_top), 0.0)
    area = tl.maximum(right - left, 0.0) * tl.maximum(bottom - top, 0.0)
    gt_area = tl.maximum(gt_right - gt_left, 0.0) * tl.maximum(gt_bottom - gt_top, 0.0)
    smaller = tl.maximum(tl.minimum(area, gt_area), 1.1754943508222875e-38)
    # Rounded to float32 after each step, as in PyTorch: Triton's float32 division is not exact.
    share = ((width * height).to(tl.float64) / smaller.to(tl.float64)).to(tl.float32)
    probability = tl.load(probabilities + e, mask=inside, other=0.0)
    score = probability * alpha + share * beta  # eq. 4
    usable = inside & (score >= threshold) & (score < float("inf"))
    if CENTERED:
        x, y = (left + right) * 0.5, (top + bottom) * 0.5
        usable = usable & (x - gt_left > center_distance) & (gt_right - x > center_distance)
        usable = usable & (y - gt_top > center_distance) & (gt_bottom - y > center_distance)
        usable = usable & (tl.load(assigned + prior) >= 0)
    key = (ascending_bits(tl.where(score == 0, 0.0, score)).to(tl.int64) << 32) + (_LOW - prior)
    tl.store(keys + e, tl.where(usable, key, _NOTHING), mask=inside)


@triton.jit
def _first_pair(gt_inds, num_pairs, gt):
    """Index of the first pair of a GT, by bisection: ``gt_inds`` ascend."""
    low = gt * 0
    high = low + num_pairs
    while low < high:
        middle = low + (high - low) // 2
        is_lower = tl.load(gt_inds + middle) < gt
        low, high = tl.where(is_lower, middle + 1, low), tl.where(is_lower, high, middle)
    return low


@triton.jit(do_not_specialize=["num_pairs", "topk"])
def select_kernel(keys, gt_inds, owners, num_pairs, topk, BLOCK: tl.constexpr):
    """Raise ``owners`` of the anchors of a GT's ``topk`` best pairs to its keys. A GT per program.

    The keys of a GT are unique; each pass takes the largest one below the last.
    """
    gt = tl.program_id(0)
    first, end = _first_pair(gt_inds, num_pairs, gt), _first_pair(gt_inds, num_pairs, gt + 1)
    column = tl.arange(0, BLOCK)
    last = tl.full([BLOCK], 0x7FFFFFFFFFFFFFFF, tl.int64)
    for _ in range(topk):
        best = tl.full([BLOCK], _NOTHING, tl.int64)
        # Not from `first` on: Triton up to 3.2 aborts the process if a range begins with a result
        # of a `while` loop.
        for start in range(0, end - first, BLOCK):
            at = first + start + column
            key = tl.load(keys + at, mask=at < end, other=_NOTHING)
            best = tl.where((key < last) & (key > best), key, best)
        top = tl.max(best, 0)
        low = top & _LOW
        tl.atomic_max(owners + (_LOW - low), top - low + (_LOW - gt), mask=top > _NOTHING)
        last = tl.zeros([BLOCK], tl.int64) + top


@triton.jit(do_not_specialize=["num_priors"])
def assign_kernel(owners, gt_labels, assigned, labels, num_priors, BLOCK: tl.constexpr):
    """Assign anchors that are not positive to the GT of their best key. ``BLOCK`` per program."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < num_priors
    key = tl.load(owners + i, mask=inside, other=_NOTHING)
    gt = _LOW - (key & _LOW)
    gains = inside & (key > _NOTHING) & (tl.load(assigned + i, mask=inside, other=1) <= 0)
    tl.store(assigned + i, gt + 1, mask=gains)
    tl.store(labels + i, tl.load(gt_labels + gt, mask=gains, other=0), mask=gains)


def add_positives(
    assigned: Tensor,
    labels: Tensor,
    pairs: tuple[Tensor, Tensor],
    priors: Tensor,
    gt_bboxes: Tensor,
    gt_labels: Tensor,
    probabilities: Tensor,
    alpha: float,
    threshold: float,
    topk: int,
    center_distance: float | None,
) -> None:
    """Make the anchors of each GT's best pairs positives, in place.

    Args:
        assigned: 1 + GT index of each anchor, 0 or less where it is not positive, ``(P,)`` int64;
            changed in place.
        labels: class of each anchor's GT, ``(P,)`` int64; changed in place.
        pairs: GT index, ascending, and anchor index of each pair, ``(E,)`` int64 each.
        priors, gt_bboxes: xyxy in pixels, ``(P, 4)`` and ``(G, 4)``.
        gt_labels: ``(G,)`` int64.
        probabilities: of the GT's class at the anchor, ``(E,)`` float32.
        alpha, threshold, topk: see :class:`~.iou_cls_score.IoUClsScoreMixin`.
        center_distance: if given, the anchor's centre must be farther than this from each side of
            the GT box, in pixels, and ignored anchors (-1) stay ignored.
    """
    gt_inds, prior_inds = (index.contiguous() for index in pairs)
    priors, gt_bboxes = priors.float().contiguous(), gt_bboxes.float().contiguous()
    gt_labels = gt_labels.contiguous()
    num_pairs, num_priors, num_gts = len(gt_inds), len(priors), len(gt_bboxes)
    keys, owners = torch.empty_like(gt_inds), torch.full_like(assigned, NOTHING)
    launch(
        score_kernel, (triton.cdiv(num_pairs, BLOCK),), prior_inds, gt_inds, priors, gt_bboxes,
        probabilities.contiguous(), assigned, keys, num_pairs, float(alpha), float(1 - alpha),
        float(threshold), float(center_distance or 0),
        CENTERED=center_distance is not None, BLOCK=BLOCK,
    )  # fmt: skip
    launch(
        select_kernel, (num_gts,), keys, gt_inds, owners, num_pairs, min(topk, num_pairs),
        BLOCK=BLOCK,
    )  # fmt: skip
    launch(
        assign_kernel, (triton.cdiv(num_priors, BLOCK),), owners, gt_labels, assigned, labels,
        num_priors, BLOCK=BLOCK,
    )  # fmt: skip
