"""From candidates to weighted positives: ambiguous locations, and the weight of each GT.

A location is ambiguous, as in FCOS, if it is positive for several GTs. Eq. 5 and 6 of `A
Triple-head Network with Loss-aware Label Assignment for Object Detection` weight the GTs of such a
location.
"""

from dataclasses import dataclass, replace

import torch
from mmdet.utils import reduce_mean
from torch import Tensor

from ....utils.triton_support import has_triton
from ...utils.bipartite_matching import least_loss, match_locations, scatter_sum
from .candidates import BatchGroundTruth, TopCandidates

AMBIGUOUS_MODES = ("soft", "ignore", "argmin")
_EPS = 1e-6  # smallest loss in eq. 5


@dataclass
class BatchAssignResult:
    """Assignment of a whole batch: a weight for each of the K candidates of each GT.

    A candidate with a weight above 0 is a positive. A location may be a positive of several GTs. No
    size depends on how many positives there are, so that nothing has to be read on the host.

    Attributes:
        prior_inds: flat location index of each candidate, ``image * P + prior``, ``(G, K)`` int64.
        losses: cost by which the candidates are ranked, ascending, ``inf`` where a GT has fewer
            than K candidates, ``(G, K)`` float32.
        weights: loss weight of each candidate, at least 0, ``(G, K)`` float32.
        rescued: whether the candidate was given to a GT that had lost all its positives to others,
            ``(G, K)`` bool.
        ignored: locations that count neither as positive nor as negative, ``(N * P,)`` bool.
        thresholds: largest positive cost of each GT, ``-inf`` without candidates, ``(G,)``.
        ambiguous: whether the candidate's cost is up to its GT's threshold, and that of another GT
            at the same location as well, ``(G, K)`` bool.
        means: means of each GT's two mixture components, the low one first, in the unit of
            ``losses``, ``(G, 2)`` float64; ``None`` if the assigner does not set it.
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
        """A copy that autograd can use, also of tensors made in inference mode."""
        copies = {name: part.clone() for name, part in vars(self).items() if part is not None}
        return replace(self, **copies)

    def nonzero(self) -> tuple[Tensor, Tensor, Tensor]:
        """The positives as a list: ``(prior_inds, gt_inds, weights)``, each ``(E,)``.

        On a GPU this is a host-device synchronisation.
        """
        gt_inds, column = (self.weights > 0).nonzero(as_tuple=True)
        return self.prior_inds[gt_inds, column], gt_inds, self.weights[gt_inds, column]


def resolve_ambiguity(
    candidates: TopCandidates,
    thresholds: Tensor | None,
    num_locations: int,
    mode: str,
    theta: float = 0.6,
) -> BatchAssignResult:
    """Turn candidates with a cost up to their GT's threshold into weighted positives.

    With ``l`` the joint losses of the n GTs of an ambiguous location, the weights are
    ``w_i = (1 / l_i) / sum_j (1 / l_j)`` (eq. 5) and their threshold ``theta + 1 / n - 0.5``
    (eq. 6). Modes:

    - ``'soft'``: a positive of every GT whose weight passes the threshold, weighted by it; where
      none passes, of the GT with the largest weight, at that weight;
    - ``'ignore'``: the same, but where none passes the location counts for nothing;
    - ``'argmin'``: a positive of the GT of least loss, at weight 1.

    A GT that had candidates and is left without a positive is given its best candidate whose
    location is not positive for another GT. Several such GTs get one each, if there are enough (see
    :func:`~.bipartite_matching.match_locations`). Where there is none, the GT shares the location
    of its very best one.

    Args:
        candidates: K candidates of each of G ground truths.
        thresholds: largest positive cost of each GT, ``(G,)``; ``None``: every candidate has a cost
            up to it.
        num_locations: N * P.
        mode: one of ``AMBIGUOUS_MODES``.
        theta: weight threshold for two GTs, not read by ``'argmin'``; 0.6 is from table 2.
    """
    losses, prior_inds, valid = candidates.losses, candidates.prior_inds, candidates.valid
    if thresholds is None:
        thresholds = losses.masked_fill(~valid, -float("inf")).amax(dim=1)
    if num_locations == 0:  # the indices of absent candidates would be out of range
        losses, prior_inds, valid = losses[:, :0], prior_inds[:, :0], valid[:, :0]
    elif losses.numel() and has_triton(losses):
        from . import ambiguity_triton

        weights, rescued, ignored, ambiguous = ambiguity_triton.resolve(
            candidates, thresholds, num_locations, theta, mode, _EPS
        )
        return BatchAssignResult(
            prior_inds, losses, weights, rescued, ignored, thresholds, ambiguous
        )
    positive = valid & (losses <= thresholds[:, None])
    num_gts = scatter_sum(positive, prior_inds, num_locations)[prior_inds]
    ambiguous = positive & (num_gts > 1)
    ignored = torch.zeros(num_locations, dtype=torch.bool, device=losses.device)
    # On a GPU this early exit would cost two host-device synchronisations. Candidates ascend in
    # loss: a GT whose first one is positive has a positive.
    if not losses.is_cuda and not ambiguous.any() and (positive[:, :1] == valid[:, :1]).all():
        weights, rescued = positive.to(losses), torch.zeros_like(positive)
        return BatchAssignResult(
            prior_inds, losses, weights, rescued, ignored, thresholds, ambiguous
        )
    least = least_loss(losses, prior_inds, positive, num_locations)
    if mode == "argmin":
        weights = least.to(losses)
    else:
        inverse = (1 / losses.clamp(min=_EPS)).masked_fill(~positive, 0)
        # A sum in float64 of float32 numbers is the same in any order.
        total = scatter_sum(inverse.double(), prior_inds, num_locations).to(losses)[prior_inds]
        share = inverse / total  # eq. 5; NaN, and not read, at locations that no GT has as positive
        passes = ambiguous & (share > theta + 1 / num_gts.clamp(min=1) - 0.5)  # eq. 6
        passing = scatter_sum(passes, prior_inds, num_locations)[prior_inds] > 0
        undecided = ambiguous & ~passing
        if mode == "soft":
            kept = passes | (undecided & least)
        else:
            kept = passes
            ignored = scatter_sum(undecided, prior_inds, num_locations) > 0
        weights = torch.where(ambiguous, share * kept, positive.to(losses))
    rescued = _rescue(losses, prior_inds, valid, weights, num_locations)
    weights = weights.masked_fill(rescued, 1)
    if mode == "ignore":
        ignored &= scatter_sum(rescued, prior_inds, num_locations) == 0
    return BatchAssignResult(prior_inds, losses, weights, rescued, ignored, thresholds, ambiguous)


def one_gt_per_location(
    result: BatchAssignResult, gts: BatchGroundTruth, num_priors: int
) -> Tensor:
    """Reduce positives to mmdet's ``gt_inds``: 0 negative, -1 ignored, else 1 + GT index.

    Of the GTs of a location, one that has no other (``rescued``) comes first, then the one of least
    loss. A GT that would be left without a location is given one of its candidates, if need be one
    of a GT that has or can get another. So every GT that has candidates has a location wherever
    that is possible for all of them, within the bounds of
    :func:`~.bipartite_matching.match_locations`.

    Args:
        result: positives of the batch.
        gts: its ground truths.
        num_priors: P.

    Returns:
        ``(N * P,)`` int64; the GT index counts within the location's image.
    """
    num_locations = gts.num_images * num_priors
    held, ignored = result.weights > 0, result.ignored
    order = result.losses.masked_fill(result.rescued, -float("inf"))
    winner = least_loss(order, result.prior_inds, held, num_locations)
    valid = result.losses < float("inf")
    # Whether the matching is needed is asked on the CPU alone: on a GPU it is a host-device
    # synchronisation. Candidates ascend in loss: a GT without a first one has none.
    if held.is_cuda or (valid[:, :1] & ~winner.any(dim=1, keepdim=True)).any():
        winner = match_locations(result.losses, result.prior_inds, valid, winner, num_locations)
        ignored = ignored & (scatter_sum(winner, result.prior_inds, num_locations) == 0)
    # GTs are in order of image: the first of an image is the first of its index.
    firsts = torch.searchsorted(gts.image_inds, gts.image_inds)
    local = torch.arange(len(held), device=held.device) - firsts
    assigned = torch.where(winner, (local + 1)[:, None], 0)
    return scatter_sum(assigned, result.prior_inds, num_locations) - ignored.long()


def reweight_per_gt(result: BatchAssignResult, power: float) -> BatchAssignResult:
    """Make GTs with many and with few positives weigh more alike; the total weight stays.

    With ``W_g`` the summed weight of a GT's positives, each of them is multiplied by
    ``W_g ** -power``, then all of them by one factor that restores the total over the batches of
    all processes. That is one ``all_reduce``, with or without positives, so every process must call
    this equally often. The papers have nothing of the kind. Candidates must lie in the GT box, so a
    small object has few of them, and where large and small objects are of different classes the
    small class hardly trains.

    Args:
        result: positives of a batch.
        power: from 0, which changes nothing, to 1, at which every GT has the same weight.
    """
    totals = result.weights.sum(dim=1, keepdim=True)
    balanced = result.weights * totals.clamp(min=1e-6).pow(-power)
    sums = torch.stack([result.weights.sum(), balanced.sum()])
    before, after = reduce_mean(sums)
    return replace(result, weights=balanced * (before / after.clamp(min=1e-6)))


def _rescue(
    losses: Tensor, prior_inds: Tensor, valid: Tensor, weights: Tensor, num_locations: int
) -> Tensor:
    """One candidate for each GT that has candidates and no positive, ``(G, K)`` bool.

    Args:
        losses, prior_inds, valid: see :class:`TopCandidates`.
        weights: of the positives so far, ``(G, K)``.
        num_locations: N * P.
    """
    positive = weights > 0
    lost = valid.any(dim=1) & ~positive.any(dim=1)
    # On a GPU the question would be a host-device synchronisation.
    if not losses.is_cuda and not lost.any():
        return torch.zeros_like(valid)
    held = scatter_sum(positive, prior_inds, num_locations) > 0
    free = valid & lost[:, None] & ~held[prior_inds]
    rescued = match_locations(losses, prior_inds, free, torch.zeros_like(free), num_locations)
    # No free location is left for the GT: the first candidate is its very best one.
    rescued[:, :1] |= (lost & ~rescued.any(dim=1))[:, None]
    return rescued
