"""``resolve_ambiguity`` in three launches on a GPU; see :mod:`.ambiguity`.

Eq. 5 and 6 of `A Triple-head Network with Loss-aware Label Assignment for Object Detection`. The
first kernel sums over the positives at each location, the second weights them, and the third, of
one program, gives a candidate to each GT that is left without a positive.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ....utils.triton_support import launch
from ...utils.bipartite_matching_triton import (
    bid,
    constants,
    grid_offsets,
    is_owner,
    loss_of_bid,
    match,
    scratch,
)
from .candidates import TopCandidates

TILE = 1024  # entries of the (G, K) grid per program


def resolve(
    candidates: TopCandidates,
    thresholds: Tensor,
    num_locations: int,
    theta: float,
    mode: str,
    least: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, rescued, ignored and ambiguous of :class:`~.ambiguity.BatchAssignResult`.

    Equal to the result on the CPU, bit for bit. The grid must not be empty.

    Args:
        candidates, thresholds, num_locations, theta, mode: see
            :func:`~.ambiguity.resolve_ambiguity`.
        least: smallest loss in eq. 5.
    """
    given = candidates.losses, candidates.prior_inds, candidates.valid, thresholds
    losses, prior_inds, valid, thresholds = (part.contiguous() for part in given)
    num_gts, width = losses.shape
    weights, ignored = torch.empty_like(losses), valid.new_zeros(num_locations)
    ambiguous, rescued, free = (torch.empty_like(valid) for _ in range(3))
    sums = prior_inds.new_zeros(3 * num_locations + 1)
    num_gts_at, bids, totals = sums[:-1].view(3, num_locations)
    totals, num_lost = totals.view(torch.float64), sums[-1:]
    launch(
        location_kernel,
        (triton.cdiv(losses.numel(), TILE),),
        losses, prior_inds, valid, thresholds, num_gts_at, bids, totals, losses.numel(), width,
        LEAST=least, MODE=mode, TILE=TILE,
    )  # fmt: skip
    block = triton.next_power_of_2(width)
    rows = min(max(TILE // block, 1), 64)
    launch(
        weight_kernel,
        (triton.cdiv(num_gts, rows),),
        losses, prior_inds, valid, thresholds, num_gts_at, bids, totals,
        weights, ambiguous, rescued, free, ignored, num_lost, num_gts, width,
        THETA=theta, LEAST=least, MODE=mode, ROWS=rows, BLOCK=block,
    )  # fmt: skip
    launch(
        rescue_kernel,
        (1,),
        losses, prior_inds, valid, free, num_lost, weights, rescued, ignored,
        *scratch(losses, num_locations), num_gts, width, num_locations,
        IGNORES=mode == "ignore", **constants(width),
    )  # fmt: skip
    return weights, rescued, ignored, ambiguous


@triton.jit(do_not_specialize=["num_entries"])
def location_kernel(
    losses, prior_inds, valid, thresholds, num_gts_at, bids, totals, num_entries, K,
    LEAST: tl.constexpr, MODE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Number of GTs, highest bid and sum of inverse losses of the positives at each location.

    All three are 0 before.
    """
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < num_entries
    g = at // K
    loss = tl.load(losses + at, mask=inside, other=float("inf"))
    positive = tl.load(valid + at, mask=inside, other=0) != 0
    positive = positive & (loss <= tl.load(thresholds + g, mask=inside, other=0.0))
    location = tl.load(prior_inds + at, mask=positive, other=0)
    tl.atomic_add(num_gts_at + location, 1, mask=positive)
    tl.atomic_max(bids + location, bid(loss, g), mask=positive)
    if MODE != "argmin":
        tl.atomic_add(totals + location, _inverse(loss, LEAST), mask=positive)


@triton.jit(do_not_specialize=["G"])
def weight_kernel(
    losses, prior_inds, valid, thresholds, num_gts_at, bids, totals,
    weights, ambiguous, rescued, free, ignored, num_lost, G, K,
    THETA: tl.constexpr, LEAST: tl.constexpr, MODE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Weights, ambiguous, ignored; no candidate is rescued yet.

    ``free`` marks the candidates that a GT without a positive may be given, ``num_lost`` counts
    these GTs.
    """
    g = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    at, inside = grid_offsets(g, G, K, BLOCK)
    loss = tl.load(losses + at, mask=inside, other=float("inf"))
    exists = tl.load(valid + at, mask=inside, other=0) != 0
    positive = exists & (loss <= tl.load(thresholds + g, mask=g < G, other=0.0)[:, None])
    location = tl.load(prior_inds + at, mask=exists, other=0)
    num_here = tl.load(num_gts_at + location, mask=exists, other=0)
    best_bid = tl.load(bids + location, mask=exists, other=0)
    least = positive & (best_bid == bid(loss, g[:, None]))
    is_ambiguous = positive & (num_here > 1)
    held = num_here > 0
    if MODE == "argmin":
        weight = least.to(tl.float32)
    else:
        total = tl.load(totals + location, mask=held, other=1.0).to(tl.float32)
        share = _share(loss, total, LEAST)  # eq. 5
        threshold = THETA + _quotient(1.0, tl.maximum(num_here, 1).to(tl.float32)) - 0.5  # eq. 6
        # The GT of least loss has the largest share: if it does not pass, none does.
        best_share = _share(loss_of_bid(best_bid), total, LEAST)
        undecided = (num_here > 1) & ~(best_share > threshold)
        kept = share > threshold
        if MODE == "soft":
            kept = kept | (undecided & least)
        else:
            held = held & ~undecided
            tl.store(ignored + location, True, mask=undecided)
        weight = tl.where(is_ambiguous, tl.where(kept, share, 0.0), positive.to(tl.float32))
    tl.store(weights + at, weight, mask=inside)
    tl.store(ambiguous + at, is_ambiguous, mask=inside)
    tl.store(rescued + at, False, mask=inside)
    lost = (tl.max(exists.to(tl.int32), 1) > 0) & (tl.max((weight > 0).to(tl.int32), 1) == 0)
    tl.store(free + at, exists & lost[:, None] & ~held, mask=inside)
    tl.atomic_add(num_lost + g * 0, 1, mask=lost)


@triton.jit(do_not_specialize=["G", "L"])
def rescue_kernel(
    losses, prior_inds, valid, free, num_lost, weights, rescued, ignored, by_location, by_gt,
    G, K, L, IGNORES: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
    MAX_ROUNDS: tl.constexpr, MAX_MOVES: tl.constexpr,
):  # fmt: skip
    """Give each GT without a positive a free location, or else its very best candidate."""
    if tl.load(num_lost) > 0:
        match(
            losses, prior_inds, free, free, False, by_location, by_gt, G, K, L,
            ROWS, BLOCK, PAIRS, MAX_ROUNDS, MAX_MOVES,
        )  # fmt: skip
        for start in range(0, G, ROWS):
            g = start + tl.arange(0, ROWS).to(tl.int64)
            at, inside = grid_offsets(g, G, K, BLOCK)
            exists = tl.load(valid + at, mask=inside, other=0) != 0
            positive = tl.load(weights + at, mask=inside, other=0.0) > 0
            found = is_owner(at, inside, g, prior_inds, free, by_location)
            some = tl.max((positive | found).to(tl.int32), 1) > 0
            first = at == g[:, None] * K
            found = found | (exists & first & ~some[:, None])
            tl.debug_barrier()  # all threads of a row have read its weights
            tl.store(rescued + at, True, mask=found)
            tl.store(weights + at, 1.0, mask=found)
            if IGNORES:
                location = tl.load(prior_inds + at, mask=found, other=0)
                tl.store(ignored + location, False, mask=found)


@triton.jit
def _quotient(a, b):
    """Correctly rounded float32 quotient; Triton's ``/`` of float32 is an approximation."""
    return (a / b.to(tl.float64)).to(tl.float32)


@triton.jit
def _inverse(loss, LEAST: tl.constexpr):
    """``1 / loss``, rounded to float32, as float64.

    Its sum at a location is exact, and so the same in any order: the largest term is less than
    2^28 times the smallest.
    """
    return _quotient(1.0, tl.maximum(loss, LEAST)).to(tl.float64)


@triton.jit
def _share(loss, total, LEAST: tl.constexpr):
    """Eq. 5."""
    return _quotient(_inverse(loss, LEAST), total)
