"""IAC's choice (paper C, eq. 4 and 5) in Triton: scores, the best pairs of a GT, the GT of each.

The same decisions as :meth:`~.iac_assigner.IoUClsScoreMixin._promote` makes in PyTorch, in three
launches. Import it only where :func:`~misalign_det.utils.triton_support.has_triton` is true.

What is compared is one int64, a key: the score's bits above, the index below, in which lower wins a
tie.
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


# Numbers and places of pairs change with each image; Triton would compile a kernel for each kind.
@triton.jit(do_not_specialize=["prior_inds", "gt_inds", "num_pairs"])
def score_keys(
    prior_inds, gt_inds, priors, gts, probabilities, assigned, keys, num_pairs,
    alpha, beta, threshold, reach, CENTERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Key of each pair, ``NOTHING`` where it is no candidate. One program: ``BLOCK`` pairs."""
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
        usable = usable & (x - gt_left > reach) & (gt_right - x > reach)
        usable = usable & (y - gt_top > reach) & (gt_bottom - y > reach)
        usable = usable & (tl.load(assigned + prior) >= 0)
    key = (ascending_bits(tl.where(score == 0, 0.0, score)).to(tl.int64) << 32) + (_LOW - prior)
    tl.store(keys + e, tl.where(usable, key, _NOTHING), mask=inside)


@triton.jit
def _first_pair(gt_inds, num_pairs, gt):
    """How many pairs have a lower GT: their ``gt_inds`` ascend."""
    low = gt * 0
    high = low + num_pairs
    while low < high:
        middle = low + (high - low) // 2
        is_lower = tl.load(gt_inds + middle) < gt
        low, high = tl.where(is_lower, middle + 1, low), tl.where(is_lower, high, middle)
    return low


@triton.jit(do_not_specialize=["num_pairs", "topk"])
def claim(keys, gt_inds, owners, num_pairs, topk, BLOCK: tl.constexpr):
    """Claim the ``topk`` best pairs of a GT for it. One program: a GT.

    A key is used up once it was the largest; keys of a GT are unique.
    """
    gt = tl.program_id(0)
    first, end = _first_pair(gt_inds, num_pairs, gt), _first_pair(gt_inds, num_pairs, gt + 1)
    column = tl.arange(0, BLOCK)
    last = tl.full([BLOCK], 0x7FFFFFFFFFFFFFFF, tl.int64)
    for _ in range(topk):
        best = tl.full([BLOCK], _NOTHING, tl.int64)
        # Not from `first` on: Triton up to 3.2 aborts the process where a range begins with what
        # a `while` has computed.
        for start in range(0, end - first, BLOCK):
            at = first + start + column
            key = tl.load(keys + at, mask=at < end, other=_NOTHING)
            best = tl.where((key < last) & (key > best), key, best)
        top = tl.max(best, 0)
        low = top & _LOW
        tl.atomic_max(owners + (_LOW - low), top - low + (_LOW - gt), mask=top > _NOTHING)
        last = tl.zeros([BLOCK], tl.int64) + top


@triton.jit(do_not_specialize=["num_priors"])
def take(owners, gt_labels, assigned, labels, num_priors, BLOCK: tl.constexpr):
    """Give a location that is no positive to the GT of its best key. ``BLOCK`` locations."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < num_priors
    key = tl.load(owners + i, mask=inside, other=_NOTHING)
    gt = _LOW - (key & _LOW)
    gains = inside & (key > _NOTHING) & (tl.load(assigned + i, mask=inside, other=1) <= 0)
    tl.store(assigned + i, gt + 1, mask=gains)
    tl.store(labels + i, tl.load(gt_labels + gt, mask=gains, other=0), mask=gains)


def promote(
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
    reach: float | None,
) -> None:
    """Give locations to the GTs whose best pairs of a score over ``threshold`` they are.

    Args:
        assigned: 1 + GT of each location, 0 or less where it is no positive, ``(P,)`` int64;
            changed in place.
        labels: ``(P,)`` int64; changed in place.
        pairs: GT, ascending, and location of each, ``(E,)`` int64 both.
        priors, gt_bboxes: xyxy in pixels, ``(P, 4)`` and ``(G, 4)``.
        gt_labels: ``(G,)`` int64.
        probabilities: of the GT's class at the location, ``(E,)`` float32.
        alpha, threshold, topk: see :class:`~.iac_assigner.IoUClsScoreMixin`.
        reach: pixels from the location's centre to each side of the box; with it, locations
            that are ignored (-1) stay so.
    """
    gt_inds, prior_inds = (index.contiguous() for index in pairs)
    priors, gt_bboxes = priors.float().contiguous(), gt_bboxes.float().contiguous()
    gt_labels = gt_labels.contiguous()
    num_pairs, num_priors, num_gts = len(gt_inds), len(priors), len(gt_bboxes)
    keys, owners = torch.empty_like(gt_inds), torch.full_like(assigned, NOTHING)
    launch(
        score_keys, (triton.cdiv(num_pairs, BLOCK),), prior_inds, gt_inds, priors, gt_bboxes,
        probabilities.contiguous(), assigned, keys, num_pairs, float(alpha), float(1 - alpha),
        float(threshold), float(reach or 0), CENTERED=reach is not None, BLOCK=BLOCK,
    )  # fmt: skip
    launch(claim, (num_gts,), keys, gt_inds, owners, num_pairs, min(topk, num_pairs), BLOCK=BLOCK)
    launch(
        take, (triton.cdiv(num_priors, BLOCK),), owners, gt_labels, assigned, labels, num_priors,
        BLOCK=BLOCK,
    )  # fmt: skip
