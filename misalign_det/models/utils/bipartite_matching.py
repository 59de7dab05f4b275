"""Which GT gets which location where several want the same: sums, minima and a matching."""

import torch
from torch import Tensor

from ...utils.triton_support import has_triton
from .host_flag import HostFlag, may_look

MAX_ROUNDS = 32  # of proposals
MAX_MOVES = 16  # matched GTs that an augmenting path may move


def scatter_sum(values: Tensor, prior_inds: Tensor, num_locations: int) -> Tensor:
    """Sum of the edges' values at each location, ``(num_locations,)``."""
    values = values.int() if values.dtype == torch.bool else values
    out = values.new_zeros(num_locations)
    return out.scatter_add_(0, prior_inds.flatten(), values.flatten())


def least_loss(losses: Tensor, prior_inds: Tensor, mask: Tensor, num_locations: int) -> Tensor:
    """The masked edge of least loss at each location; a tie goes to the GT of lower index."""
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

    A maximum bipartite matching by augmenting paths, all GTs at once. A path ends at a location
    that is free, or that its GT can spare because it holds another one. In each round every
    unmatched GT proposes to the candidate at which its shortest augmenting path begins, of those to
    the one of least loss; GTs of the same first choice are spread over their equally good ones. A
    location accepts the proposal of least loss. The GT that held it, if it holds no other, is
    unmatched in the next round.

    Guarantee: each round matches a GT or shortens the shortest augmenting path by one. So no GT
    stays unmatched that a path of up to ``MAX_MOVES`` moves could match, as long as the lengths of
    the paths that are needed one after another sum to no more than ``MAX_ROUNDS``. Disjoint paths
    are followed in the same rounds. Where no matching covers all GTs, as many as possible are
    matched, which need not be those that held a location before.

    Args:
        losses: ``(G, K)``, ascending in each row over the candidates.
        prior_inds: location of each, ``(G, K)``.
        candidates: which may be given, ``(G, K)`` bool; no location twice in a row.
        held: which are given already, a location to one GT at most, ``(G, K)`` bool.
        num_locations: N * P.

    Returns:
        ``held`` after the matching.
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
    # num_gts stands for nobody.
    owner = scatter_sum(torch.where(held, gt_inds - num_gts, 0), prior_inds, num_locations)
    owner += num_gts
    has_candidates, unfinished = candidates.any(dim=1), HostFlag(losses)
    for i in range(MAX_ROUNDS):
        holder = owner[prior_inds]
        held = candidates & (holder == gt_inds)
        num_held = held.sum(dim=1)
        # Most need nobody to move: the first round looks for paths without a move alone.
        moves = _path_moves(candidates, holder, num_held, MAX_MOVES if i else 0)
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
    """Moves of the shortest augmenting path that begins at each candidate, ``(G, K)``.

    Args:
        candidates: see :func:`match_locations`.
        holder: GT that holds each candidate's location, G if it is free, ``(G, K)``.
        num_held: locations of each GT, ``(G,)``.
        most: moves that a path may have.

    Returns:
        More than ``MAX_MOVES`` where there is no such path.
    """
    never = MAX_MOVES + 1
    can_spare = torch.cat([num_held > 1, num_held.new_ones(1, dtype=torch.bool)])
    moves = torch.where(candidates & can_spare[holder], 0, never)
    for _ in range(most):
        # Its holder moves along its own shortest path.
        fewest = torch.cat([moves.amin(dim=1), moves.new_zeros(1)])
        longer = (fewest + 1)[holder].masked_fill(~candidates, never)
        before, moves = moves, torch.minimum(moves, longer)
        if may_look(moves) and torch.equal(before, moves):
            break
    return moves


def _spread(
    losses: Tensor, prior_inds: Tensor, best: Tensor, proposes: Tensor, num_locations: int
) -> Tensor:
    """One of its best candidates for each GT that proposes, ``(G, K)`` bool.

    The GT of r-th least loss among those of the same first choice takes its r-th one, so that
    copies of a box are matched in one round.

    Args:
        losses, prior_inds: see :func:`match_locations`.
        best: candidates of the shortest path of each GT that proposes, ``(G, K)`` bool.
        proposes: ``(G,)`` bool.
    """
    first = best.long().argmax(dim=1, keepdim=True)
    target = torch.where(proposes, prior_inds.gather(1, first)[:, 0], num_locations)
    order = losses.gather(1, first)[:, 0].argsort(stable=True)
    order = order[target[order].argsort(stable=True)]
    target = target[order]
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(target, target)
    rank = torch.zeros_like(order).scatter(0, order, place)
    rank = rank % best.sum(dim=1).clamp(min=1)
    return best & (best.cumsum(dim=1) == rank[:, None] + 1)
