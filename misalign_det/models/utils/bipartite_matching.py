"""Bipartite matching of GTs and locations, and the sums and minima per location that it uses."""

import torch
from torch import Tensor

from ...utils.triton_support import has_triton
from .host_flag import HostFlag

MAX_ROUNDS = 32  # rounds of proposals
MAX_MOVES = 16  # matched GTs that one augmenting path may move


def scatter_sum(values: Tensor, prior_inds: Tensor, num_locations: int) -> Tensor:
    """Sum of the values at each location.

    Args:
        values: of each candidate, ``(G, K)``; a bool counts as 0 or 1.
        prior_inds: location of each candidate, ``(G, K)``.
        num_locations: N * P.

    Returns:
        ``(num_locations,)``, int32 for bool.
    """
    values = values.int() if values.dtype == torch.bool else values
    out = values.new_zeros(num_locations)
    return out.scatter_add_(0, prior_inds.flatten(), values.flatten())


def least_loss(losses: Tensor, prior_inds: Tensor, mask: Tensor, num_locations: int) -> Tensor:
    """The candidate of least loss at each location; a tie goes to the GT of lower index.

    Args:
        losses: of each candidate, no NaN, ``(G, K)``.
        prior_inds: location of each candidate, ``(G, K)``.
        mask: candidates that take part, ``(G, K)`` bool.
        num_locations: N * P.

    Returns:
        ``(G, K)`` bool, at most one True per location.
    """
    if losses.numel() and has_triton(losses):
        from . import bipartite_matching_triton

        return bipartite_matching_triton.least_loss(losses, prior_inds, mask, num_locations)
    flat = prior_inds.flatten()
    masked = torch.where(mask, losses, float("inf"))
    least = losses.new_full((num_locations,), float("inf"))
    least.scatter_reduce_(0, flat, masked.flatten(), "amin")
    tied = mask & (masked == least[prior_inds])
    num_gts = len(losses)
    gt_inds = torch.arange(num_gts, device=losses.device)[:, None]
    first = gt_inds.new_full((num_locations,), num_gts)
    first.scatter_reduce_(0, flat, torch.where(tied, gt_inds, num_gts).flatten(), "amin")
    return tied & (gt_inds == first[prior_inds])


def match_locations(
    losses: Tensor, prior_inds: Tensor, candidates: Tensor, held: Tensor, num_locations: int
) -> Tensor:
    """Match every unmatched GT to one of its candidate locations, moving others where needed.

    A maximum bipartite matching by augmenting paths, for all GTs at once. A path ends at a location
    that is free, or whose GT holds another one. In each round every unmatched GT proposes to the
    candidate at which its shortest augmenting path begins, of several to that of least loss; GTs of
    the same first choice are spread over their equally good candidates. A location accepts the
    proposal of least loss. The GT that held it, if it holds no other, is unmatched in the next
    round.

    Guarantee: each round matches a GT or shortens the shortest augmenting path by one. So every GT
    is matched that a path of up to ``MAX_MOVES`` moves can match, as long as the lengths of the
    paths that depend on one another sum to at most ``MAX_ROUNDS``. Disjoint paths are followed in
    the same rounds. Where no matching covers all GTs, as many as possible are matched, not
    necessarily those that held a location before.

    Args:
        losses: ``(G, K)``, ascending in each row over the candidates.
        prior_inds: location of each, ``(G, K)``.
        candidates: pairs that may be matched, ``(G, K)`` bool; no location twice in a row.
        held: pairs that are matched already, ``(G, K)`` bool; a location to one GT at most.
        num_locations: N * P.

    Returns:
        ``held`` after the matching, ``(G, K)`` bool.
    """
    if losses.numel() == 0:
        return held
    if has_triton(losses):
        from . import bipartite_matching_triton

        return bipartite_matching_triton.match_locations(
            losses, prior_inds, candidates, held, num_locations
        )
    num_gts = len(losses)
    gt_inds = torch.arange(num_gts, device=losses.device)[:, None]
    # num_gts: the location is free.
    owner = scatter_sum(torch.where(held, gt_inds - num_gts, 0), prior_inds, num_locations)
    owner += num_gts
    has_candidates, unfinished = candidates.any(dim=1), HostFlag(losses)
    for i in range(MAX_ROUNDS):
        holder = owner[prior_inds]
        held = candidates & (holder == gt_inds)
        num_held = held.sum(dim=1)
        # Most GTs need no move: the first round considers only paths without one.
        moves = _path_moves(candidates, holder, num_held, MAX_MOVES if i else 0)  # (G, K)
        fewest = moves.amin(dim=1, keepdim=True)
        unmatched = has_candidates & (num_held == 0)
        proposes = unmatched & (fewest[:, 0] <= MAX_MOVES)
        unfinished.set((proposes if i else unmatched).any())
        if not unfinished:
            break
        best = (moves == fewest) & proposes[:, None]
        proposed = _spread(losses, prior_inds, best, proposes, num_locations)
        accepted = least_loss(losses, prior_inds, proposed, num_locations)
        new_owner = scatter_sum(torch.where(accepted, gt_inds + 1, 0), prior_inds, num_locations)
        owner = torch.where(new_owner > 0, new_owner - 1, owner)
    return candidates & (owner[prior_inds] == gt_inds)


def _path_moves(candidates: Tensor, holder: Tensor, num_held: Tensor, most: int) -> Tensor:
    """Number of moves of the shortest augmenting path that begins at each candidate.

    Args:
        candidates: see :func:`match_locations`.
        holder: GT that holds each candidate's location, G if it is free, ``(G, K)``.
        num_held: number of locations that each GT holds, ``(G,)``.
        most: largest number of moves of a path.

    Returns:
        ``(G, K)``; more than ``MAX_MOVES`` where there is no such path.
    """
    never = MAX_MOVES + 1
    can_spare = torch.cat([num_held > 1, num_held.new_ones(1, dtype=torch.bool)])
    moves = torch.where(candidates & can_spare[holder], 0, never)
    for _ in range(most):
        # One move more than the location's holder needs.
        fewest = torch.cat([moves.amin(dim=1), moves.new_zeros(1)])
        longer = (fewest + 1)[holder].masked_fill(~candidates, never)
        before, moves = moves, torch.minimum(moves, longer)
        # On a GPU the comparison would be a host-device synchronisation.
        if not moves.is_cuda and torch.equal(before, moves):
            break
    return moves


def _spread(
    losses: Tensor, prior_inds: Tensor, best: Tensor, proposes: Tensor, num_locations: int
) -> Tensor:
    """Choose one of its best candidates for each GT that proposes.

    Of the GTs of the same first choice, that of r-th least loss takes its r-th best candidate, so
    that copies of a box are matched in one round.

    Args:
        losses, prior_inds: see :func:`match_locations`.
        best: candidates at which a shortest path of their GT begins, ``(G, K)`` bool.
        proposes: GTs that propose, ``(G,)`` bool.
        num_locations: N * P.

    Returns:
        ``(G, K)`` bool, one True per GT that proposes.
    """
    first = best.long().argmax(dim=1, keepdim=True)
    target = torch.where(proposes, prior_inds.gather(1, first)[:, 0], num_locations)
    order = losses.gather(1, first)[:, 0].argsort(stable=True)
    order = order[target[order].argsort(stable=True)]
    target = target[order]
    nth = torch.arange(len(order), device=order.device) - torch.searchsorted(target, target)
    rank = torch.zeros_like(order).scatter(0, order, nth)
    rank = rank % best.sum(dim=1).clamp(min=1)
    return best & (best.cumsum(dim=1) == rank[:, None] + 1)
