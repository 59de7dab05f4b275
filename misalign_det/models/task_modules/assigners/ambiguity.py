"""Locations that several GTs claim (paper B, eq. 5 and 6), and the last positive of each GT."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ....utils.triton_support import has_triton
from ...utils.bipartite_matching import least_loss, match_locations, scatter_sum
from ...utils.host_flag import may_look
from .candidates import BatchGroundTruth, TopCandidates

AMBIGUOUS_MODES = ("soft", "ignore", "argmin")
_EPS = 1e-6  # least loss in eq. 5


@dataclass
class BatchAssignResult:
    """What an assigner of this package decides; places of the ``(G, K)`` grid, no host wait.

    Attributes:
        prior_inds: flat location index ``image * P + prior``, ``(G, K)``.
        losses: cost by which the candidates were ranked, ``(G, K)``, ``inf`` where absent.
        weights: loss weight of each edge, ``(G, K)``; 0 is not a positive.
        rescued: the edge was given to a GT that had lost all of its own, ``(G, K)`` bool.
        ignored: locations that count neither as positive nor as negative, ``(N * P,)`` bool.
        thresholds: largest positive cost of each GT, ``(G,)``.
        ambiguous: the GT claimed the location and was not the only one, ``(G, K)`` bool.
        means: of the two mixture components of each GT, low first, in the unit of ``losses``,
            ``(G, 2)``; ``None`` if the assigner has not said.
    """

    prior_inds: Tensor
    losses: Tensor
    weights: Tensor
    rescued: Tensor
    ignored: Tensor
    thresholds: Tensor
    ambiguous: Tensor
    means: Tensor | None = None

    def clone(self) -> "BatchAssignResult":
        """A copy that autograd can use, also of what inference mode made."""
        parts = vars(self).values()
        return BatchAssignResult(*(part if part is None else part.clone() for part in parts))

    def nonzero(self) -> tuple:
        """The positives as a list: ``(prior_inds, gt_inds, weights)``, each ``(E,)``."""
        gt_inds, column = (self.weights > 0).nonzero(as_tuple=True)
        return self.prior_inds[gt_inds, column], gt_inds, self.weights[gt_inds, column]


def resolve_ambiguity(
    candidates: TopCandidates, thresholds: Tensor, num_locations: int, theta: float, mode: str
) -> BatchAssignResult:
    """Turn claims (cost up to the GT's threshold) into weighted positives.

    With ``l`` the joint losses of the n GTs that claim a location, eq. 5 is
    ``w_i = (1 / l_i) / sum_j (1 / l_j)`` and eq. 6 the threshold ``theta + 1 / n - 0.5``. Modes:

    - ``'soft'``: a positive of every GT whose weight passes the threshold, weighted by it; where
      none passes, of the GT with the largest weight, at that weight;
    - ``'ignore'``: the same, but where none passes the location counts for nothing;
    - ``'argmin'``: a positive of the GT of least loss, at weight 1.

    A GT that had candidates and is left with nothing gets back its best candidate location that no
    other GT holds. Several such GTs get one each, if there are enough of them (see
    :func:`~.bipartite_matching.match_locations`). Where there is none, the GT shares
    its very best one.

    Args:
        candidates: K candidates of each of G ground truths.
        thresholds: ``(G,)``.
        num_locations: N * P.
        theta: threshold for two GTs.
        mode: one of ``AMBIGUOUS_MODES``.
    """
    losses, prior_inds, valid = candidates.losses, candidates.prior_inds, candidates.valid
    if num_locations == 0:  # or the indices, of places that are absent, would point nowhere
        losses, prior_inds, valid = losses[:, :0], prior_inds[:, :0], valid[:, :0]
    elif losses.numel() and has_triton(losses):
        from . import ambiguity_triton

        weights, rescued, ignored, ambiguous = ambiguity_triton.resolve(
            candidates, thresholds, num_locations, theta, mode, _EPS
        )
        return BatchAssignResult(
            prior_inds, losses, weights, rescued, ignored, thresholds, ambiguous
        )
    claimed = valid & (losses <= thresholds[:, None])
    claims = scatter_sum(claimed, prior_inds, num_locations)[prior_inds]
    ambiguous = claimed & (claims > 1)
    ignored = torch.zeros(num_locations, dtype=torch.bool, device=losses.device)
    # Candidates ascend in loss: a GT that claims its first one is not left with nothing.
    if may_look(losses) and not ambiguous.any() and (claimed[:, :1] == valid[:, :1]).all():
        weights, rescued = claimed.to(losses), torch.zeros_like(claimed)
        return BatchAssignResult(
            prior_inds, losses, weights, rescued, ignored, thresholds, ambiguous
        )
    least = least_loss(losses, prior_inds, claimed, num_locations)
    if mode == "argmin":
        weights = least.to(losses)
    else:
        inverse = (1 / losses.clamp(min=_EPS)).masked_fill(~claimed, 0)
        # A sum in float64 of float32 numbers is the same in any order.
        total = scatter_sum(inverse.double(), prior_inds, num_locations).to(losses)[prior_inds]
        share = inverse / total  # eq. 5; NaN where nobody claims the location, and not read
        passes = ambiguous & (share > theta + 1 / claims.clamp(min=1) - 0.5)  # eq. 6
        passing = scatter_sum(passes, prior_inds, num_locations)[prior_inds] > 0
        undecided = ambiguous & ~passing
        if mode == "soft":
            kept = passes | (undecided & least)
        else:
            kept = passes
            ignored = scatter_sum(undecided, prior_inds, num_locations) > 0
        weights = torch.where(ambiguous, share * kept, claimed.to(losses))
    rescued = _rescue(losses, prior_inds, valid, weights, num_locations)
    weights = weights.masked_fill(rescued, 1)
    if mode == "ignore":
        ignored &= scatter_sum(rescued, prior_inds, num_locations) == 0
    return BatchAssignResult(prior_inds, losses, weights, rescued, ignored, thresholds, ambiguous)


def one_gt_per_location(edges: BatchAssignResult, gts: BatchGroundTruth, num_priors: int) -> Tensor:
    """Reduce positives to mmdet's form, ``(N * P,)``: 0 negative, -1 ignored, else 1 + GT index.

    The GT index counts within its own image. Where several GTs hold a location, one that has
    nothing else (``rescued``) comes first, then the one of least loss. A GT that would be left with
    nothing gets one of its candidates, if need be from a GT that has or can get another one. So
    every GT that has candidates has a location wherever some division gives each one, within the
    bounds of :func:`~.bipartite_matching.match_locations`.
    """
    num_locations = gts.num_images * num_priors
    held, ignored = edges.weights > 0, edges.ignored
    order = edges.losses.masked_fill(edges.rescued, -float("inf"))
    winner = least_loss(order, edges.prior_inds, held, num_locations)
    valid = edges.losses < float("inf")
    # Candidates ascend in loss: a GT without a first one has none.
    if not may_look(held) or (valid[:, :1] & ~winner.any(dim=1, keepdim=True)).any():
        winner = match_locations(edges.losses, edges.prior_inds, valid, winner, num_locations)
        ignored = ignored & (scatter_sum(winner, edges.prior_inds, num_locations) == 0)
    # GTs are in order of image: the first of an image is the first of its index.
    firsts = torch.searchsorted(gts.image_inds, gts.image_inds)
    local = torch.arange(len(held), device=held.device) - firsts
    assigned = torch.where(winner, (local + 1)[:, None], 0)
    return scatter_sum(assigned, edges.prior_inds, num_locations) - ignored.long()


def _rescue(losses, prior_inds, valid, weights, num_locations) -> Tensor:
    """One edge for each GT that has candidates and holds nothing, ``(G, K)`` bool."""
    positive = weights > 0
    lost = valid.any(dim=1) & ~positive.any(dim=1)
    if may_look(losses) and not lost.any():
        return torch.zeros_like(valid)
    held = scatter_sum(positive, prior_inds, num_locations) > 0
    free = valid & lost[:, None] & ~held[prior_inds]
    rescued = match_locations(losses, prior_inds, free, torch.zeros_like(free), num_locations)
    # Nothing free is left for it: the first candidate is its very best one.
    rescued[:, :1] |= (lost & ~rescued.any(dim=1))[:, None]
    return rescued
