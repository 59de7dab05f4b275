"""Which GT gets which location where several want the same: sums, minima and a matching."""

import torch
from torch import Tensor

from .host_waits import Flag, may_look

ROUNDS = 32  # of proposals
DEPTH = 16  # GTs that may have to move for another one


def scatter_sum(values: Tensor, prior_inds: Tensor, num_locations: int) -> Tensor:
    """Sum of the edges' values at each location, ``(num_locations,)``."""
    values = values.int() if values.dtype == torch.bool else values
    out = values.new_zeros(num_locations)
    return out.scatter_add_(0, prior_inds.flatten(), values.flatten())


def least_loss(losses: Tensor, prior_inds: Tensor, mask: Tensor, num_locations: int) -> Tensor:
    """The masked edge of least loss at each location; a tie goes to the GT of lower index."""
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
    """Give every GT that holds no location one of its candidates, moving others where needed.

    A maximum bipartite matching by augmenting paths, all GTs at once. A location can be had for
    nothing if nobody holds it or its GT holds another one too; else its GT would have to move to
    one of its own candidates. In each round every GT without a location proposes to the candidate
    that makes the fewest others move, of those to the one of least loss; GTs with the same first
    choice spread over their equally good ones. A location takes the proposal of least loss. The GT
    that held it, if it has no other, proposes in the next round.

    Guarantee: a round ends with the shortest chain of moves one shorter or with one more GT served.
    So no GT is left out that up to ``DEPTH`` moves could serve, as long as the chains needed one
    after another, each counted with its last step, are no longer than ``ROUNDS`` in all. Chains
    that share no GT and no location are followed in the same rounds. Where no division serves all
    GTs, as many as possible are served, which need not be those that held a location before.

    Args:
        losses: ``(G, K)``, ascending in each row over the candidates.
        prior_inds: location of each, ``(G, K)``.
        candidates: which may be given, ``(G, K)`` bool; no location twice in a row.
        held: which are given already, a location to one GT at most, ``(G, K)`` bool.
        num_locations: N * P.

    Returns:
        ``held`` after the matching.
    """
    if losses.shape[1] == 0:
        return held
    num_gts = len(losses)
    gt_inds = torch.arange(num_gts, device=losses.device)[:, None]
    # num_gts stands for nobody.
    owner = scatter_sum(torch.where(held, gt_inds - num_gts, 0), prior_inds, num_locations)
    owner += num_gts
    has_candidates, goes_on = candidates.any(dim=1), Flag(losses)
    for i in range(ROUNDS):
        holder = owner[prior_inds]
        held = candidates & (holder == gt_inds)
        num_held = held.sum(dim=1)
        # Most need nobody to move: the first round asks for no chains.
        moves = _num_moves(candidates, holder, num_held, DEPTH if i else 0)
        fewest = moves.amin(dim=1, keepdim=True)
        lost = has_candidates & (num_held == 0)
        proposes = lost & (fewest[:, 0] <= DEPTH)
        goes_on.set((proposes if i else lost).any())
        if not goes_on:
            break
        best = (moves == fewest) & proposes[:, None]
        proposed = _spread(losses, prior_inds, best, proposes, num_locations)
        taken = least_loss(losses, prior_inds, proposed, num_locations)
        taker = scatter_sum(torch.where(taken, gt_inds + 1, 0), prior_inds, num_locations)
        owner = torch.where(taker > 0, taker - 1, owner)
    return candidates & (owner[prior_inds] == gt_inds)


def _num_moves(candidates: Tensor, holder: Tensor, num_held: Tensor, depth: int) -> Tensor:
    """How many GTs would have to move for each candidate, ``(G, K)``; above ``DEPTH`` if too many.

    Args:
        holder: GT that holds each candidate's location, G if nobody does, ``(G, K)``.
        num_held: locations of each GT, ``(G,)``.
        depth: longest chain looked for.
    """
    never = DEPTH + 1
    to_spare = torch.cat([num_held > 1, num_held.new_ones(1, dtype=torch.bool)])
    moves = torch.where(candidates & to_spare[holder], 0, never)
    for _ in range(depth):
        # A location costs its GT's own cheapest move and one more.
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

    The GT of r-th least loss among those of the same first choice takes its r-th one: copies of a
    box do not wait for one another.
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
