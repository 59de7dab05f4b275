"""Minima and the matching of :mod:`.bipartite_matching` on a GPU, in Triton.

One program does the whole matching: its threads synchronise between two steps, which separate
programs cannot. It works on the ``(G, K)`` grid tile by tile, so that any size fits. Where several
threads write to one address, either all write the same value or an atomic maximum decides: the
result does not depend on their order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...utils.triton_support import launch
from . import bipartite_matching

TILE = 2048  # entries of the (G, K) grid at a time
PAIRS = 64  # GTs that those of a tile are compared with at a time


def least_loss(losses: Tensor, prior_inds: Tensor, mask: Tensor, num_locations: int) -> Tensor:
    """The same as :func:`~.bipartite_matching.least_loss`, for a grid that is not empty."""
    losses, prior_inds = losses.float().contiguous(), prior_inds.contiguous()
    mask = mask.contiguous()
    bids, least = prior_inds.new_zeros(num_locations), torch.empty_like(mask)
    grid, sizes = (triton.cdiv(losses.numel(), TILE),), (losses.numel(), losses.shape[1])
    launch(bid_kernel, grid, losses, prior_inds, mask, bids, *sizes, TILE=TILE)
    launch(least_kernel, grid, losses, prior_inds, mask, bids, least, *sizes, TILE=TILE)
    return least


def match_locations(
    losses: Tensor, prior_inds: Tensor, candidates: Tensor, held: Tensor, num_locations: int
) -> Tensor:
    """The same as :func:`~.bipartite_matching.match_locations`, for a grid that is not empty."""
    found = torch.empty_like(held, memory_format=torch.contiguous_format)
    launch(
        match_kernel,
        (1,),
        losses.contiguous(),
        prior_inds.contiguous(),
        candidates.contiguous(),
        held.contiguous(),
        found,
        *scratch(losses, num_locations),
        *losses.shape,
        num_locations,
        **constants(losses.shape[1]),
    )
    return found


def scratch(losses: Tensor, num_locations: int) -> tuple[Tensor, Tensor]:
    """Uninitialised memory of :func:`match`, ``(2, L)`` by location and ``(4, G)`` by GT."""
    by_location = losses.new_empty((2, num_locations), dtype=torch.int64)
    return by_location, losses.new_empty((4, len(losses)), dtype=torch.int64)


def constants(width: int) -> dict[str, int]:
    """Sizes of tiles and bounds of the search, for K = ``width``."""
    block = triton.next_power_of_2(width)
    return dict(
        ROWS=min(max(TILE // block, 1), PAIRS),
        BLOCK=block,
        PAIRS=PAIRS,
        MAX_ROUNDS=bipartite_matching.MAX_ROUNDS,
        MAX_MOVES=bipartite_matching.MAX_MOVES,
        num_warps=8,
    )


@triton.jit(do_not_specialize=["num_entries"])
def bid_kernel(losses, prior_inds, mask, bids, num_entries, K, TILE: tl.constexpr):
    """Highest bid of the masked candidates at each location, ``bids (L,)``, 0 before."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    masked = tl.load(mask + at, mask=at < num_entries, other=0) != 0
    location = tl.load(prior_inds + at, mask=masked, other=0)
    loss = tl.load(losses + at, mask=masked, other=0.0)
    tl.atomic_max(bids + location, bid(loss, at // K), mask=masked)


@triton.jit(do_not_specialize=["num_entries"])
def least_kernel(losses, prior_inds, mask, bids, least, num_entries, K, TILE: tl.constexpr):
    """Whether each masked candidate has the highest bid at its location."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    masked = tl.load(mask + at, mask=at < num_entries, other=0) != 0
    location = tl.load(prior_inds + at, mask=masked, other=0)
    loss = tl.load(losses + at, mask=masked, other=0.0)
    highest = tl.load(bids + location, mask=masked, other=0)
    tl.store(least + at, masked & (highest == bid(loss, at // K)), mask=at < num_entries)


@triton.jit(do_not_specialize=["G", "L"])
def match_kernel(
    losses, prior_inds, candidates, held, found, by_location, by_gt, G, K, L,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
    MAX_ROUNDS: tl.constexpr, MAX_MOVES: tl.constexpr,
):  # fmt: skip
    """``found (G, K)`` from the other ``(G, K)`` tensors; see :func:`match_locations`."""
    match(
        losses, prior_inds, candidates, held, True, by_location, by_gt, G, K, L,
        ROWS, BLOCK, PAIRS, MAX_ROUNDS, MAX_MOVES,
    )  # fmt: skip
    for start in range(0, G, ROWS):
        g = start + tl.arange(0, ROWS).to(tl.int64)
        at, inside = grid_offsets(g, G, K, BLOCK)
        tl.store(found + at, is_owner(at, inside, g, prior_inds, candidates, by_location), inside)


@triton.jit
def grid_offsets(g, G, K, BLOCK: tl.constexpr):
    """Offsets of the grid's entries in the rows ``g``, and whether they are inside it."""
    k = tl.arange(0, BLOCK)
    return g[:, None] * K + k[None, :], (g[:, None] < G) & (k[None, :] < K)


@triton.jit
def is_owner(at, inside, g, prior_inds, candidates, owners):
    """Whether the location of each candidate belongs to its GT."""
    candidate = tl.load(candidates + at, mask=inside, other=0) != 0
    location = tl.load(prior_inds + at, mask=candidate, other=0)
    return candidate & (tl.load(owners + location, mask=candidate, other=-1) == g[:, None])


@triton.jit
def ascending_bits(x):
    """Bits of a float32 as an int32 that ascends with it: those of negative numbers are flipped.

    -0.0 comes before 0.0.
    """
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def bid(loss, g):
    """Positive int64 that is larger for a smaller float32 loss, then for a lower GT index."""
    # 0.0 - loss is never -0.0.
    return (ascending_bits(0.0 - loss).to(tl.int64) << 31) + (2**62 + 2**31 - 1) - g


@triton.jit
def loss_of_bid(bids):
    """The loss that :func:`bid` was made from."""
    bits = ((bids - 2**62) >> 31).to(tl.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return 0.0 - bits.to(tl.float32, bitcast=True)


@triton.jit
def match(
    losses, prior_inds, candidates, held, HOLDS: tl.constexpr, by_location, by_gt, G, K, L,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
    MAX_ROUNDS: tl.constexpr, MAX_MOVES: tl.constexpr,
):  # fmt: skip
    """Write the GT of each candidate's location, or G if it stays free, to ``by_location[0]``.

    The rounds are those of ``bipartite_matching.match_locations``; there is none if every GT that
    has candidates holds a location already.

    Args:
        losses, prior_inds, candidates, held: ``(G, K)``; without ``HOLDS`` nothing is held, and
            ``held`` is not read.
        by_location: owner and highest bid of each location, ``(2, L)`` int64.
        by_gt: number of locations of each GT and moves of its shortest path; then, in a list of
            the GTs that propose, offsets in the grid of their first choice and of their choice;
            ``(4, G)`` int64.
    """
    owners, bids = by_location, by_location + L
    num_held, moves, firsts, choices = by_gt, by_gt + G, by_gt + 2 * G, by_gt + 3 * G
    for start in range(0, G, ROWS):
        g = start + tl.arange(0, ROWS).to(tl.int64)
        at, inside = grid_offsets(g, G, K, BLOCK)
        candidate = tl.load(candidates + at, mask=inside, other=0) != 0
        location = tl.load(prior_inds + at, mask=candidate, other=0)
        tl.store(owners + location, G, mask=candidate)  # G: it is free
        tl.store(bids + location, 0, mask=candidate)
    tl.debug_barrier()
    unmatched = 0
    for start in range(0, G, ROWS):
        g = start + tl.arange(0, ROWS).to(tl.int64)
        at, inside = grid_offsets(g, G, K, BLOCK)
        candidate = tl.load(candidates + at, mask=inside, other=0) != 0
        lacks = tl.max(candidate.to(tl.int32), 1)
        if HOLDS:
            location = tl.load(prior_inds + at, mask=candidate, other=0)
            holds = tl.load(held + at, mask=candidate, other=0) != 0
            tl.store(owners + location, g[:, None], mask=holds)
            lacks = lacks * (1 - tl.max(holds.to(tl.int32), 1))
        unmatched += tl.sum(lacks, 0)
    tl.debug_barrier()
    # The first round considers only paths without a move.
    left, num_rounds, most_moves = unmatched, 0, 0
    while (left > 0) & (num_rounds < MAX_ROUNDS):
        for start in range(0, G, ROWS):
            g = start + tl.arange(0, ROWS).to(tl.int64)
            at, inside = grid_offsets(g, G, K, BLOCK)
            holds = is_owner(at, inside, g, prior_inds, candidates, owners)
            tl.store(num_held + g, tl.sum(holds.to(tl.int32), 1), mask=g < G)
            tl.store(moves + g, MAX_MOVES + 1, mask=g < G)
        tl.debug_barrier()
        # Shortest augmenting paths, breadth first: those of 0 moves, then of 1, ...
        level, num_new = 0, 1
        while (level <= most_moves) & (num_new > 0):
            num_new = 0
            for start in range(0, G, ROWS):
                g = start + tl.arange(0, ROWS).to(tl.int64)
                at, inside = grid_offsets(g, G, K, BLOCK)
                path = _path_moves(
                    at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES
                )
                without = tl.load(moves + g, mask=g < G, other=0) > MAX_MOVES
                new = without & (tl.min(path, 1) == level)
                # Several threads may hold the same row: all read its moves before one writes them.
                tl.debug_barrier()
                tl.store(moves + g, level, mask=new)
                num_new += tl.sum(new.to(tl.int32), 0)
            tl.debug_barrier()
            level += 1
        # List the unmatched GTs that have a path, in order of GT.
        num_proposing = 0
        for start in range(0, G, ROWS):
            g = start + tl.arange(0, ROWS).to(tl.int64)
            at, inside = grid_offsets(g, G, K, BLOCK)
            path = _path_moves(
                at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES
            )
            fewest = tl.load(moves + g, mask=g < G, other=MAX_MOVES + 1)
            holds = tl.load(num_held + g, mask=g < G, other=1)
            proposes = ((holds == 0) & (fewest <= MAX_MOVES)).to(tl.int32)
            first = tl.min(tl.where(path == fewest[:, None], at, 2**62), 1)
            position = num_proposing + tl.cumsum(proposes, 0) - 1
            tl.store(firsts + position, first, mask=proposes > 0)
            num_proposing += tl.sum(proposes, 0)
        tl.debug_barrier()
        for start in range(0, num_proposing, ROWS):
            i = start + tl.arange(0, ROWS)
            inside_list = i < num_proposing
            first = tl.load(firsts + i, mask=inside_list, other=0)
            target = tl.load(prior_inds + first, mask=inside_list, other=-1)
            loss = tl.load(losses + first, mask=inside_list, other=0.0)
            # Of the GTs of the same first choice, that of r-th least loss takes its r-th best one.
            rank = tl.zeros([ROWS], tl.int32)
            for other_start in range(0, num_proposing, PAIRS):
                j = other_start + tl.arange(0, PAIRS)
                other = tl.load(firsts + j, mask=j < num_proposing, other=0)
                other_target = tl.load(prior_inds + other, mask=j < num_proposing, other=-2)
                other_loss = tl.load(losses + other, mask=j < num_proposing, other=0.0)
                less = other_loss[None, :] < loss[:, None]
                tied = (other_loss[None, :] == loss[:, None]) & (j[None, :] < i[:, None])
                before = (other_target[None, :] == target[:, None]) & (less | tied)
                rank += tl.sum(before.to(tl.int32), 1)
            g = tl.where(inside_list, first // K, G)
            at, inside = grid_offsets(g, G, K, BLOCK)
            path = _path_moves(
                at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES
            )
            fewest = tl.load(moves + g, mask=inside_list, other=-1)
            best = (path == fewest[:, None]).to(tl.int32)
            rank = rank % tl.maximum(tl.sum(best, 1), 1)
            chosen = (best > 0) & (tl.cumsum(best, 1) == rank[:, None] + 1)
            choice = tl.sum(tl.where(chosen, at, 0), 1)
            tl.store(choices + i, choice, mask=inside_list)
            location = tl.load(prior_inds + choice, mask=inside_list, other=0)
            loss = tl.load(losses + choice, mask=inside_list, other=0.0)
            tl.atomic_max(bids + location, bid(loss, g), mask=inside_list)
        tl.debug_barrier()
        # A location accepts the proposal of least loss; its former GT may be unmatched now.
        for start in range(0, num_proposing, ROWS):
            i = start + tl.arange(0, ROWS)
            inside_list = i < num_proposing
            choice = tl.load(choices + i, mask=inside_list, other=0)
            location = tl.load(prior_inds + choice, mask=inside_list, other=0)
            loss = tl.load(losses + choice, mask=inside_list, other=0.0)
            g = choice // K
            accepted = tl.load(bids + location, mask=inside_list, other=0) == bid(loss, g)
            tl.store(owners + location, g, mask=inside_list & accepted)
        tl.debug_barrier()
        for start in range(0, num_proposing, ROWS):
            i = start + tl.arange(0, ROWS)
            choice = tl.load(choices + i, mask=i < num_proposing, other=0)
            location = tl.load(prior_inds + choice, mask=i < num_proposing, other=0)
            tl.store(bids + location, 0, mask=i < num_proposing)
        tl.debug_barrier()
        if most_moves == 0:
            num_proposing += 1  # not the end: paths with moves have not been considered yet
        left, most_moves = num_proposing, MAX_MOVES
        num_rounds += 1


@triton.jit
def _path_moves(
    at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES: tl.constexpr
):
    """Moves of the shortest path from each candidate on, more than ``MAX_MOVES`` if none is known.

    0 where the location is free or its GT holds another one; else one more than its GT needs.
    """
    candidate = tl.load(candidates + at, mask=inside, other=0) != 0
    location = tl.load(prior_inds + at, mask=candidate, other=0)
    holder = tl.load(owners + location, mask=candidate, other=0)
    taken = candidate & (holder < G)
    can_spare = tl.load(num_held + holder, mask=taken, other=0) > 1
    longer = tl.load(moves + holder, mask=taken, other=MAX_MOVES + 1) + 1
    return tl.where(candidate & (can_spare | (holder == G)), 0, longer)
