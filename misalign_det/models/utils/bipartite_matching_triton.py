"""Minima and the matching of :mod:`.bipartite_matching` on a GPU, in Triton.

One program does the matching: its threads wait for each other between two steps, which those of
separate programs cannot. It goes over the ``(G, K)`` grid in tiles, so that any size fits. Where
several threads write to one place, either all write the same or an atomic maximum decides: the
result does not depend on their order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...utils.triton_support import launch
from . import bipartite_matching

TILE = 2048  # places of the grid at a time
PAIRS = 64  # GTs with which those of a tile are compared at a time


def least_loss(losses: Tensor, prior_inds: Tensor, mask: Tensor, num_locations: int) -> Tensor:
    """As :func:`~.bipartite_matching.least_loss`, for a grid that is not empty."""
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
    """As :func:`~.bipartite_matching.match_locations`, for a grid that is not empty."""
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
    """What :func:`match` writes to, a location and a GT; any values."""
    by_location = losses.new_empty((2, num_locations), dtype=torch.int64)
    return by_location, losses.new_empty((4, len(losses)), dtype=torch.int64)


def constants(width: int) -> dict:
    """Sizes of tiles and bounds of the search."""
    block = triton.next_power_of_2(width)
    return dict(
        ROWS=min(max(TILE // block, 1), PAIRS),
        BLOCK=block,
        PAIRS=PAIRS,
        MAX_ROUNDS=bipartite_matching.MAX_ROUNDS,
        MAX_MOVES=bipartite_matching.MAX_MOVES,
        num_warps=8,
    )


@triton.jit(do_not_specialize=["num_places"])
def bid_kernel(losses, prior_inds, mask, bids, num_places, K, TILE: tl.constexpr):
    """Highest bid of the masked edges at each location, ``bids (L,)``, 0 before."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    masked = tl.load(mask + at, mask=at < num_places, other=0) != 0
    location = tl.load(prior_inds + at, mask=masked, other=0)
    loss = tl.load(losses + at, mask=masked, other=0.0)
    tl.atomic_max(bids + location, bid(loss, at // K), mask=masked)


@triton.jit(do_not_specialize=["num_places"])
def least_kernel(losses, prior_inds, mask, bids, least, num_places, K, TILE: tl.constexpr):
    """Whether each masked edge is the one of the highest bid."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    masked = tl.load(mask + at, mask=at < num_places, other=0) != 0
    location = tl.load(prior_inds + at, mask=masked, other=0)
    loss = tl.load(losses + at, mask=masked, other=0.0)
    highest = tl.load(bids + location, mask=masked, other=0)
    tl.store(least + at, masked & (highest == bid(loss, at // K)), mask=at < num_places)


@triton.jit(do_not_specialize=["G", "L"])
def match_kernel(
    losses, prior_inds, candidates, held, found, by_location, by_gt, G, K, L,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
    MAX_ROUNDS: tl.constexpr, MAX_MOVES: tl.constexpr,
):  # fmt: skip
    """``found (G, K)`` by the other ``(G, K)``; see :func:`match_locations`."""
    match(
        losses, prior_inds, candidates, held, True, by_location, by_gt, G, K, L,
        ROWS, BLOCK, PAIRS, MAX_ROUNDS, MAX_MOVES,
    )  # fmt: skip
    for start in range(0, G, ROWS):
        g = start + tl.arange(0, ROWS).to(tl.int64)
        at, inside = grid_places(g, G, K, BLOCK)
        tl.store(found + at, is_owner(at, inside, g, prior_inds, candidates, by_location), inside)


@triton.jit
def grid_places(g, G, K, BLOCK: tl.constexpr):
    """Places of the grid in the rows ``g``, and whether they are inside it."""
    k = tl.arange(0, BLOCK)
    return g[:, None] * K + k[None, :], (g[:, None] < G) & (k[None, :] < K)


@triton.jit
def is_owner(at, inside, g, prior_inds, candidates, owners):
    """Whether a GT has been given the location of its candidate."""
    candidate = tl.load(candidates + at, mask=inside, other=0) != 0
    location = tl.load(prior_inds + at, mask=candidate, other=0)
    return candidate & (tl.load(owners + location, mask=candidate, other=-1) == g[:, None])


@triton.jit
def ascending_bits(x):
    """A float32's bits, int32 that ascend with it: those of negative ones are flipped.

    But for -0.0, which comes before 0.0.
    """
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def bid(loss, g):
    """Integers that are larger for a smaller loss (float32), and then for a lower GT; above 0."""
    # 0.0 - loss is never -0.0.
    return (ascending_bits(0.0 - loss).to(tl.int64) << 31) + (2**62 + 2**31 - 1) - g


@triton.jit
def loss_of_bid(bids):
    """The loss of :func:`bid`."""
    bits = ((bids - 2**62) >> 31).to(tl.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return 0.0 - bits.to(tl.float32, bitcast=True)


@triton.jit
def match(
    losses, prior_inds, candidates, held, HOLDS: tl.constexpr, by_location, by_gt, G, K, L,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
    MAX_ROUNDS: tl.constexpr, MAX_MOVES: tl.constexpr,
):  # fmt: skip
    """Leave the GT that gets it in ``by_location[0]`` for each location of a candidate, or G.

    The rounds are those of ``matching.match_locations``; if every GT holds a location already there
    is none.

    Args:
        losses, prior_inds, candidates, held: ``(G, K)``; without ``HOLDS`` nothing is held, and
            ``held`` is not read.
        by_location: owner and bid, ``(2, L)`` int64.
        by_gt: how many locations it holds, moves of its shortest path, and for each GT that
            proposes (in a list) its first choice and its choice, places of the grid;
            ``(4, G)`` int64.
    """
    owners, bids = by_location, by_location + L
    num_held, moves, firsts, choices = by_gt, by_gt + G, by_gt + 2 * G, by_gt + 3 * G
    for start in range(0, G, ROWS):
        g = start + tl.arange(0, ROWS).to(tl.int64)
        at, inside = grid_places(g, G, K, BLOCK)
        candidate = tl.load(candidates + at, mask=inside, other=0) != 0
        location = tl.load(prior_inds + at, mask=candidate, other=0)
        tl.store(owners + location, G, mask=candidate)  # G stands for nobody
        tl.store(bids + location, 0, mask=candidate)
    tl.debug_barrier()
    unmatched = 0
    for start in range(0, G, ROWS):
        g = start + tl.arange(0, ROWS).to(tl.int64)
        at, inside = grid_places(g, G, K, BLOCK)
        candidate = tl.load(candidates + at, mask=inside, other=0) != 0
        lacks = tl.max(candidate.to(tl.int32), 1)
        if HOLDS:
            location = tl.load(prior_inds + at, mask=candidate, other=0)
            holds = tl.load(held + at, mask=candidate, other=0) != 0
            tl.store(owners + location, g[:, None], mask=holds)
            lacks = lacks * (1 - tl.max(holds.to(tl.int32), 1))
        unmatched += tl.sum(lacks, 0)
    tl.debug_barrier()
    # The first round looks for paths without a move alone.
    left, num_rounds, most_moves = unmatched, 0, 0
    while (left > 0) & (num_rounds < MAX_ROUNDS):
        for start in range(0, G, ROWS):
            g = start + tl.arange(0, ROWS).to(tl.int64)
            at, inside = grid_places(g, G, K, BLOCK)
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
                at, inside = grid_places(g, G, K, BLOCK)
                path = _path_moves(
                    at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES
                )
                without = tl.load(moves + g, mask=g < G, other=0) > MAX_MOVES
                new = without & (tl.min(path, 1) == level)
                # Several threads may hold the same row: all have read its moves before one writes.
                tl.debug_barrier()
                tl.store(moves + g, level, mask=new)
                num_new += tl.sum(new.to(tl.int32), 0)
            tl.debug_barrier()
            level += 1
        # A list of the unmatched GTs that have a path, in order of GT.
        num_proposing = 0
        for start in range(0, G, ROWS):
            g = start + tl.arange(0, ROWS).to(tl.int64)
            at, inside = grid_places(g, G, K, BLOCK)
            path = _path_moves(
                at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES
            )
            fewest = tl.load(moves + g, mask=g < G, other=MAX_MOVES + 1)
            holds = tl.load(num_held + g, mask=g < G, other=1)
            proposes = ((holds == 0) & (fewest <= MAX_MOVES)).to(tl.int32)
            first = tl.min(tl.where(path == fewest[:, None], at, 2**62), 1)
            place = num_proposing + tl.cumsum(proposes, 0) - 1
            tl.store(firsts + place, first, mask=proposes > 0)
            num_proposing += tl.sum(proposes, 0)
        tl.debug_barrier()
        for start in range(0, num_proposing, ROWS):
            i = start + tl.arange(0, ROWS)
            there = i < num_proposing
            first = tl.load(firsts + i, mask=there, other=0)
            target = tl.load(prior_inds + first, mask=there, other=-1)
            loss = tl.load(losses + first, mask=there, other=0.0)
            # The GT of r-th least loss among those of the same first choice takes its r-th one.
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
            g = tl.where(there, first // K, G)
            at, inside = grid_places(g, G, K, BLOCK)
            path = _path_moves(
                at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES
            )
            fewest = tl.load(moves + g, mask=there, other=-1)
            best = (path == fewest[:, None]).to(tl.int32)
            rank = rank % tl.maximum(tl.sum(best, 1), 1)
            chosen = (best > 0) & (tl.cumsum(best, 1) == rank[:, None] + 1)
            choice = tl.sum(tl.where(chosen, at, 0), 1)
            tl.store(choices + i, choice, mask=there)
            location = tl.load(prior_inds + choice, mask=there, other=0)
            loss = tl.load(losses + choice, mask=there, other=0.0)
            tl.atomic_max(bids + location, bid(loss, g), mask=there)
        tl.debug_barrier()
        # A location accepts the proposal of least loss; who held it is unmatched next.
        for start in range(0, num_proposing, ROWS):
            i = start + tl.arange(0, ROWS)
            there = i < num_proposing
            choice = tl.load(choices + i, mask=there, other=0)
            location = tl.load(prior_inds + choice, mask=there, other=0)
            loss = tl.load(losses + choice, mask=there, other=0.0)
            g = choice // K
            accepted = tl.load(bids + location, mask=there, other=0) == bid(loss, g)
            tl.store(owners + location, g, mask=there & accepted)
        tl.debug_barrier()
        for start in range(0, num_proposing, ROWS):
            i = start + tl.arange(0, ROWS)
            choice = tl.load(choices + i, mask=i < num_proposing, other=0)
            location = tl.load(prior_inds + choice, mask=i < num_proposing, other=0)
            tl.store(bids + location, 0, mask=i < num_proposing)
        tl.debug_barrier()
        if most_moves == 0:
            num_proposing += 1  # paths with moves have not been looked for
        left, most_moves = num_proposing, MAX_MOVES
        num_rounds += 1


@triton.jit
def _path_moves(
    at, inside, prior_inds, candidates, owners, num_held, moves, G, MAX_MOVES: tl.constexpr
):
    """Moves of the shortest path from each candidate on, over ``MAX_MOVES`` if none is known.

    None where the location is free, or its GT holds another one; else one more than its GT needs.
    """
    candidate = tl.load(candidates + at, mask=inside, other=0) != 0
    location = tl.load(prior_inds + at, mask=candidate, other=0)
    holder = tl.load(owners + location, mask=candidate, other=0)
    taken = candidate & (holder < G)
    can_spare = tl.load(num_held + holder, mask=taken, other=0) > 1
    longer = tl.load(moves + holder, mask=taken, other=MAX_MOVES + 1) + 1
    return tl.where(candidate & (can_spare | (holder == G)), 0, longer)
