"""Equations 5 and 6 by hand, each treatment of ambiguous locations, and the last positive."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from misalign_det.models.task_modules.assigners import ambiguity
from misalign_det.models.task_modules.assigners.ambiguity import (
    one_gt_per_location,
    resolve_ambiguity,
)
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth, TopCandidates

INF = math.inf


def candidates(losses, prior_inds):
    return TopCandidates(losses, prior_inds, losses.isfinite(), torch.zeros_like(prior_inds))


def resolve(losses, prior_inds, thresholds, mode="soft", theta=0.6, num_locations=6, device="cpu"):
    losses, prior_inds = (torch.tensor(part, device=device) for part in (losses, prior_inds))
    if thresholds is not None:
        thresholds = torch.tensor(thresholds, device=device)
    return resolve_ambiguity(candidates(losses, prior_inds), thresholds, num_locations, mode, theta)


def test_two_gts_one_passes():
    # Location 0: losses 1 and 3, shares 3/4 and 1/4 (eq. 5); theta* = 0.6 (eq. 6).
    assigned = resolve([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [0, 2]], [2.0, 4.0])
    torch.testing.assert_close(assigned.weights, torch.tensor([[0.75, 1.0], [0.0, 1.0]]))
    assert assigned.ambiguous.tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize(
    "mode, weights, ignored",
    [
        ("soft", [[5 / 9, 1.0], [0.0, 1.0]], []),
        ("ignore", [[0.0, 1.0], [0.0, 1.0]], [0]),
        ("argmin", [[1.0, 1.0], [0.0, 1.0]], []),
    ],
)
def test_two_gts_none_passes(mode, weights, ignored):
    # Shares 5/9 and 4/9, both below 0.6.
    assigned = resolve([[0.8, 1.0], [1.0, 2.0]], [[0, 1], [0, 2]], [1.0, 2.0], mode)
    torch.testing.assert_close(assigned.weights, torch.tensor(weights))
    assert assigned.ignored.nonzero().flatten().tolist() == ignored


@pytest.mark.parametrize("mode", ["soft", "ignore", "argmin"])
def test_without_thresholds_all_candidates_are_positive_candidates(mode):
    losses = [[0.5, 2.0, INF], [3.0, 4.0, 5.0], [INF, INF, INF]]
    priors = [[0, 1, 0], [0, 2, 3], [0, 0, 0]]
    found, expected = (resolve(losses, priors, limits, mode) for limits in (None, [2.0, 5.0, -INF]))
    for name, value in vars(expected).items():
        other = getattr(found, name)
        assert value is other is None or torch.equal(value, other), name
    assert (found.weights > 0).tolist() == [[True, True, False], [False, True, True], [False] * 3]


def test_three_gts_two_pass():
    # Losses 1, 1, 4: shares 4/9, 4/9, 1/9; theta* = 0.6 + 1/3 - 0.5 = 13/30 < 4/9.
    assigned = resolve(
        [[1.0, 1.5], [1.0, 1.5], [4.0, 5.0]], [[0, 1], [0, 2], [0, 3]], [2.0, 2.0, 5.0]
    )
    torch.testing.assert_close(assigned.weights, torch.tensor([[4 / 9, 1], [4 / 9, 1], [0, 1.0]]))


def test_losses_beyond_the_threshold_make_no_location_ambiguous():
    assigned = resolve([[1.0, 2.0], [3.0, INF]], [[0, 1], [1, 0]], [1.0, 3.0])
    assert assigned.weights.tolist() == [[1, 0], [1, 0]]
    assert not assigned.ambiguous.any()


def test_equal_losses_go_to_the_first_gt_under_argmin():
    assigned = resolve([[1.0, 1.0], [1.0, 1.0]], [[0, 1], [0, 2]], [1.0, 1.0], "argmin")
    assert assigned.weights.tolist() == [[1, 1], [0, 1]]


def test_a_gt_that_lost_everything_gets_its_best_free_candidate():
    # GT 1 has location 0 alone as a positive and loses it; 1 is held, 2 is free.
    assigned = resolve(
        [[0.1, 0.2, INF], [0.5, 0.6, 0.7]], [[0, 1, 0], [0, 1, 2]], [0.2, 0.5], "argmin"
    )
    assert assigned.weights.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert assigned.rescued.tolist() == [[False] * 3, [False, False, True]]


def test_two_gts_on_a_single_location_share_it():
    assigned = resolve([[0.1], [0.2]], [[3], [3]], [0.1, 0.2], "argmin")
    assert assigned.weights.tolist() == [[1], [1]]
    gts = BatchGroundTruth(torch.zeros(2, 4), torch.zeros(2), torch.tensor([0, 0]), 1)
    # mmdet's form has one GT per location: the one that has nothing else comes first.
    assert one_gt_per_location(assigned, gts, 6).tolist() == [0, 0, 0, 2, 0, 0]


def test_ignored_location_is_given_back_when_a_gt_needs_it():
    assigned = resolve([[1.0], [1.0]], [[0], [0]], [1.0, 1.0], "ignore")
    assert assigned.weights.tolist() == [[1], [1]]
    assert not assigned.ignored.any()


def test_gt_indices_count_within_their_image():
    # Two images of three locations: GT 0 and 1 in the first, 2 in the second.
    assigned = resolve([[1.0], [1.0], [1.0]], [[0], [2], [4]], [1.0] * 3)
    gts = BatchGroundTruth(torch.zeros(3, 4), torch.zeros(3), torch.tensor([0, 0, 1]), 2)
    assert one_gt_per_location(assigned, gts, 3).tolist() == [1, 0, 2, 0, 1, 0]


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["soft", "ignore", "argmin"])
@pytest.mark.parametrize("num_positives", [0, 1, 2, 5])
def test_the_result_in_pytorch_on_a_gpu_is_that_of_the_cpu(mode, num_positives, without_triton):
    """There is no early exit on a GPU where no location is ambiguous."""
    torch.manual_seed(num_positives)
    losses = torch.rand(12, 6).sort(dim=1).values
    losses[3, 2:] = losses[5] = INF
    thresholds = losses[:, num_positives] if num_positives else torch.full((12,), -1.0)
    for spread in (72, 12):  # locations: one for each candidate, then too few
        priors = torch.arange(72).view(12, 6) % spread
        expected, found = (
            resolve_ambiguity(
                candidates(losses.to(device), priors.to(device)), thresholds.to(device), 72, mode
            )
            for device in ("cpu", "cuda")
        )
        for name, value in vars(expected).items():
            other = getattr(found, name)
            assert value is other is None or torch.equal(value, other.cpu()), name


@pytest.mark.parametrize("mode", ["soft", "ignore", "argmin"])
@pytest.mark.parametrize("seed", range(5))
def test_every_gt_with_a_candidate_keeps_a_positive(mode, seed):
    torch.manual_seed(seed)
    losses = torch.rand(40, 6).sort(dim=1).values
    losses[::7, 2:] = INF
    losses[3] = INF
    priors = torch.stack([torch.randperm(12)[:6] for _ in range(40)])
    assigned = resolve_ambiguity(candidates(losses, priors), losses[:, 1], 12, mode)
    kept = (assigned.weights > 0).any(dim=1)
    assert kept.tolist() == losses.isfinite().any(dim=1).tolist()


def test_soft_weights_at_a_location_never_exceed_one_without_rescue():
    torch.manual_seed(0)
    losses = torch.rand(20, 6).sort(dim=1).values
    priors = torch.stack([torch.randperm(12)[:6] for _ in range(20)])
    assigned = resolve_ambiguity(candidates(losses, priors), losses[:, 3], 12, "soft")
    weights = assigned.weights.masked_fill(assigned.rescued, 0)
    total = torch.zeros(12).scatter_add_(0, priors.flatten(), weights.flatten())
    assert total.max() <= 1 + 1e-6


def test_a_share_at_the_threshold_does_not_pass():
    # Shares of 1/2 against theta* = 0.5 + 1/2 - 0.5 (eq. 6: larger than).
    assigned = resolve([[1.0, 2.0], [1.0, 2.0]], [[0, 1], [0, 2]], [2.0, 2.0], theta=0.5)
    assert assigned.weights.tolist() == [[0.5, 1.0], [0.0, 1.0]]
    # The positives as a list: location, GT, weight.
    priors, gt_inds, weights = assigned.nonzero()
    assert (priors.tolist(), gt_inds.tolist()) == ([0, 1, 2], [0, 0, 1])
    assert weights.tolist() == [0.5, 1.0, 1.0]
    assigned = resolve([[1.0, 2.0], [1.0, 2.0]], [[0, 1], [0, 2]], [2.0, 2.0], theta=0.49)
    assert assigned.weights.tolist() == [[0.5, 1.0], [0.5, 1.0]]


def test_a_loss_of_zero_has_a_share():
    assigned = resolve([[0.0, 2.0], [1.0, 2.0]], [[0, 1], [0, 2]], [2.0, 2.0])
    torch.testing.assert_close(assigned.weights, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    assigned = resolve([[0.0, 2.0], [0.0, 2.0]], [[0, 1], [0, 2]], [2.0, 2.0])
    assert assigned.weights.tolist() == [[0.5, 1.0], [0.0, 1.0]]


def test_huge_losses_have_shares_too():
    assigned = resolve([[1e8, 3e8], [3e8, 4e8]], [[0, 1], [0, 2]], [3e8, 4e8])
    torch.testing.assert_close(assigned.weights, torch.tensor([[0.75, 1.0], [0.0, 1.0]]))


def test_an_ignored_location_is_one_where_nobody_passes():
    # Shares of 3/4 and 1/4: the first passes, so the location is a positive.
    assigned = resolve([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [0, 2]], [2.0, 4.0], "ignore")
    torch.testing.assert_close(assigned.weights, torch.tensor([[0.75, 1.0], [0.0, 1.0]]))
    assert not assigned.ignored.any()


def in_mmdets_form(assigned, num_locations=6):
    bboxes = torch.zeros(len(assigned.losses), 4, device=assigned.losses.device)
    gts = BatchGroundTruth(bboxes, None, bboxes[:, 0].long(), 1)
    return one_gt_per_location(assigned, gts, num_locations).tolist()


def test_ignored_locations_in_mmdets_form():
    assigned = resolve([[0.8, 1.0], [1.0, 2.0]], [[0, 1], [0, 2]], [1.0, 2.0], "ignore")
    assert in_mmdets_form(assigned) == [-1, 1, 2, 0, 0, 0]


def test_an_ignored_location_that_a_gt_needs_is_not_ignored_in_mmdets_form():
    # Location 0 is ignored, and the second GT loses location 2 to the third.
    assigned = resolve([[0.8, 1.0], [1.0, 2.0]], [[0, 1], [0, 2]], [1.0, 2.0], "ignore")
    assigned.weights[1, 1] = 0
    assert in_mmdets_form(assigned) == [2, 1, 0, 0, 0, 0]


def test_two_lost_gts_get_a_location_each():
    # Positives of the first GT are 0 and 1, of the others 0, which they lose; 2 and 3 are free.
    assigned = resolve(
        [[0.1, 0.2, INF], [0.5, 0.6, 0.7], [0.5, 0.6, 0.8]],
        [[0, 1, 0], [0, 2, 3], [0, 2, 3]],
        [0.2, 0.5, 0.5],
        "argmin",
    )
    assert assigned.weights.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert assigned.rescued.tolist() == [[False] * 3, [False, True, False], [False, False, True]]
    assert in_mmdets_form(assigned) == [1, 1, 2, 3, 0, 0]


def test_the_free_location_goes_to_the_gt_that_has_no_other():
    # Both lost GTs rank 2 first; the third has 3 as well.
    assigned = resolve(
        [[0.1, INF, INF], [0.5, 0.6, INF], [0.5, 0.55, 0.8]],
        [[0, 0, 0], [0, 2, 0], [0, 2, 3]],
        [0.1, 0.5, 0.5],
        "argmin",
    )
    assert assigned.weights.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_lost_gt_shares_its_very_best_location_where_all_are_held():
    assigned = resolve([[0.1, 0.2], [0.5, 0.6]], [[0, 1], [1, 0]], [0.2, 0.5], "argmin")
    assert assigned.weights.tolist() == [[1, 1], [1, 0]]
    assert assigned.rescued.tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize(
    "losses, prior_inds, thresholds, expected",
    [
        # The first holds 1 and 2, the second can have 1 alone.
        ([[0.1, 0.2], [0.5, INF]], [[1, 2], [1, 0]], [0.2, 0.5], [0, 2, 1, 0, 0, 0]),
        # The first holds 1 and can have 2, the second 1 alone.
        ([[0.1, 0.9], [0.5, INF]], [[1, 2], [1, 0]], [0.1, 0.5], [0, 2, 1, 0, 0, 0]),
        # Shared by weight; the first has more, the second nothing else.
        ([[0.5, 0.6], [0.5, INF]], [[1, 2], [1, 0]], [0.6, 0.5], [0, 2, 1, 0, 0, 0]),
        # A GT whose losses are all infinite has no candidate.
        ([[INF, INF], [0.5, INF]], [[1, 2], [1, 0]], [-INF, 0.5], [0, 2, 0, 0, 0, 0]),
    ],
)
@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("mode", ["soft", "argmin"])
def test_every_gt_keeps_a_location_in_mmdets_form(
    losses, prior_inds, thresholds, expected, mode, device, without_triton
):
    assigned = resolve(losses, prior_inds, thresholds, mode, theta=0.5, device=device)
    assert in_mmdets_form(assigned) == expected


def test_where_nothing_is_lost_nothing_is_matched(monkeypatch):
    """The ordinary case on the CPU."""
    monkeypatch.setattr(ambiguity, "match_locations", None)
    assigned = resolve([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [0, 2]], [2.0, 4.0])
    assert in_mmdets_form(assigned) == [1, 1, 2, 0, 0, 0]
    # Neither if a GT has no candidate at all.
    assigned = resolve([[1.0, 2.0], [INF, INF]], [[0, 1], [0, 2]], [2.0, -INF])
    assert in_mmdets_form(assigned) == [1, 1, 0, 0, 0, 0]


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["soft", "ignore", "argmin"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_location_at_all(mode, device, without_triton):
    assigned = resolve([[INF, INF]], [[0, 0]], [-INF], mode, num_locations=0, device=device)
    assert assigned.weights.shape[0] == 1 and len(assigned.nonzero()[0]) == 0
    assert assigned.ignored.shape == (0,) and in_mmdets_form(assigned, 0) == []


def test_clone_is_a_copy():
    assigned = resolve([[1.0, 2.0]], [[0, 1]], [2.0])
    copy = assigned.clone()
    copy.weights[:] = 0
    assert assigned.weights.tolist() == [[1, 1]] and copy.means is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["soft", "ignore", "argmin"])
def test_in_mmdets_form_a_gt_has_nothing_only_where_no_matching_covers_all(mode, seed):
    torch.manual_seed(seed)
    losses = torch.rand(9, 4).sort(dim=1).values
    priors = torch.stack([torch.randperm(12)[:4] for _ in range(9)])
    assigned = resolve_ambiguity(candidates(losses, priors), losses[:, 1], 12, mode)
    found = in_mmdets_form(assigned, 12)
    pairs = np.zeros((9, 12), dtype=int)
    np.put_along_axis(pairs, priors.numpy(), 1, axis=1)
    matched = maximum_bipartite_matching(csr_matrix(pairs), perm_type="column") >= 0
    assert len({gt for gt in found if gt > 0}) == matched.sum()
