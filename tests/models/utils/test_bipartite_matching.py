"""One location for each GT: small cases by hand, and SciPy's maximum matching."""

import math

import numpy as np
import pytest
import torch
from helpers.matching_cases import random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from misalign_det.models.utils import bipartite_matching
from misalign_det.models.utils.bipartite_matching import least_loss, match_locations, scatter_sum

NUM_LOCATIONS = 12


def match(locations, held=None):
    """Locations of each GT after the matching.

    Args:
        locations: candidate locations of each GT, best first.
        held: those that it holds already.
    """
    width = max(map(len, locations))
    candidates = torch.tensor([[k < len(row) for k in range(width)] for row in locations])
    prior_inds = torch.tensor([row + [0] * (width - len(row)) for row in locations])
    losses = torch.arange(width) + torch.arange(float(len(locations)))[:, None]
    losses = losses.masked_fill(~candidates, math.inf)
    holds = torch.zeros_like(candidates)
    for g, row in enumerate(held or []):
        for location in row:
            holds[g, locations[g].index(location)] = True
    found = match_locations(losses, prior_inds, candidates, holds, NUM_LOCATIONS)
    return [prior_inds[g, found[g]].tolist() for g in range(len(locations))]


@pytest.mark.parametrize(
    "locations, held, expected",
    [
        # Its best one, and another one where two GTs have the same best one.
        ([[3, 1], [2]], None, [[3], [2]]),
        ([[3, 1], [3, 2]], None, [[3], [2]]),
        ([[3, 1], [3]], None, [[1], [3]]),
        # From a GT that has another one, which keeps that.
        ([[1, 2], [1]], [[1, 2], []], [[2], [1]]),
        # From a GT that can move to a free one.
        ([[1, 2], [1]], [[1], []], [[2], [1]]),
        # The free one, although moving another GT would make the best one free.
        ([[1, 2], [1, 5]], [[1], []], [[1], [5]]),
        # A chain of three moves.
        ([[1, 2], [2, 3], [3, 4], [1]], [[1], [2], [3], []], [[2], [3], [4], [1]]),
        # No matching covers both: a GT keeps what it has.
        ([[1], [1]], [[1], []], [[1], []]),
        ([[1, 2], [1, 2], [2, 1]], [[1], [2], []], [[1], [2], []]),
        # Copies of one box.
        ([[1, 2, 3, 4]] * 4, None, [[1], [2], [3], [4]]),
        ([[1, 2]] * 3, None, [[1], [2], []]),
        # No candidate, nothing.
        ([[], [7]], None, [[], [7]]),
    ],
    ids=str,
)
def test_matchings_by_hand(locations, held, expected):
    assert match(locations, held) == expected


def test_two_lost_gts_may_take_both_locations_of_a_third():
    """Which moves to another one."""
    assert match([[1, 2, 3], [1], [2]], [[1, 2], [], []]) == [[3], [1], [2]]


def chain(length):
    """The last GT needs what the first one holds; each can move to the next one's location."""
    locations = [[g, g + 1] for g in range(length)] + [[0]]
    return locations, [[g] for g in range(length)] + [[]]


def test_bounds_of_the_search(monkeypatch):
    locations, held = chain(5)
    monkeypatch.setattr(bipartite_matching, "MAX_MOVES", 5)
    assert match(locations, held) == [[1], [2], [3], [4], [5], [0]]
    monkeypatch.setattr(bipartite_matching, "MAX_MOVES", 4)
    assert match(locations, held) == held
    monkeypatch.setattr(bipartite_matching, "MAX_MOVES", 5)
    # One round without moves, then one per move and the last step.
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 7)
    assert match(locations, held)[5] == [0]
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 6)
    assert sum(map(bool, match(locations, held))) == 5


def test_default_bounds():
    assert (bipartite_matching.MAX_ROUNDS, bipartite_matching.MAX_MOVES) == (32, 16)


def test_copies_of_a_box_are_matched_in_one_round(monkeypatch):
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 1)
    assert match([list(range(12))] * 12) == [[i] for i in range(12)]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_as_many_gts_as_scipys_maximum_matching(seed):
    losses, prior_inds, candidates, held, num_locations = random_case(seed)
    found = match_locations(losses, prior_inds, candidates, held, num_locations)
    pairs = np.zeros((len(losses), num_locations), dtype=int)
    rows, columns = candidates.nonzero(as_tuple=True)
    pairs[rows, prior_inds[rows, columns]] = 1
    matched = maximum_bipartite_matching(csr_matrix(pairs), perm_type="column") >= 0
    assert found.any(dim=1).sum() == matched.sum()
    assert not (found & ~candidates).any()
    assert scatter_sum(found, prior_inds, num_locations).max() <= 1


@pytest.mark.cuda
@pytest.mark.parametrize("seed", range(40))
def test_in_pytorch_on_a_gpu_the_result_is_that_of_the_cpu(seed, without_triton):
    """There the lengths of paths are not compared to end their search early."""
    *tensors, num_locations = random_case(seed)
    expected = match_locations(*tensors, num_locations)
    found = match_locations(*(part.to("cuda") for part in tensors), num_locations)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("num_gts, width", [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_match(num_gts, width):
    nothing = torch.zeros(num_gts, width)
    held = match_locations(nothing, nothing.long(), nothing.bool(), nothing.bool(), 5)
    assert held.shape == nothing.shape and not held.any()


def test_least_loss_by_hand():
    losses = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.5, -0.0]])
    prior_inds = torch.tensor([[0, 1], [0, 1], [0, 1]])
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    found = least_loss(losses, prior_inds, mask, 3)
    assert found.tolist() == [[True, True], [False, False], [False, False]]


def test_sum_of_any_number_of_candidates_at_one_location():
    ones = torch.ones(300, 1, dtype=torch.bool)
    assert scatter_sum(ones, torch.zeros(300, 1).long(), 2).tolist() == [300, 0]
    assert scatter_sum(ones * 0.5, torch.zeros(300, 1).long(), 2).tolist() == [150, 0]
