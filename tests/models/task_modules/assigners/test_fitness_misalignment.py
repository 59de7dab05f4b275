"""Choice of levels, fitness and misalignment by hand."""

import math

import pytest
import torch

import misalign_det  # noqa: F401
from misalign_det.models.task_modules.assigners.candidates import CandidatePairs
from misalign_det.models.task_modules.assigners.fitness_misalignment import (
    MAX_LEVELS,
    alignment_cost,
    candidates_per_level,
    fitness,
    gather_levels,
    level_of_priors,
    select_levels,
    within_regress_range,
)

INF = math.inf


def test_levels_from_strides():
    assert level_of_priors(torch.tensor([8.0, 8, 16, 32, 32])).tolist() == [0, 0, 1, 2, 2]


def test_candidates_per_level_by_hand():
    # One GT, three levels of 2, 2 and 1 locations; losses 3, 1 | nan, 2 | 5; the two best of each.
    pairs = CandidatePairs(torch.arange(5), torch.zeros(5, dtype=torch.long), torch.tensor([5]))
    losses = torch.tensor([3.0, 1.0, math.nan, 2.0, 5.0])
    top = candidates_per_level(pairs, losses, torch.tensor([0, 0, 1, 1, 2]), topk=2)
    assert top.losses[0, :4].tolist() == [[1, 3], [2, INF], [5, INF], [INF, INF]]
    assert top.prior_inds[top.losses.isfinite()].tolist() == [1, 0, 3, 4]
    # Means 2, 2, 5: a tie goes to the finer level.
    chosen = select_levels(top.losses, num_levels=2)
    assert chosen.tolist() == [[0, 1]]
    joined = gather_levels(top, chosen)
    assert joined.losses.tolist() == [[1, 3, 2, INF]]
    assert joined.valid.tolist() == [[True, True, True, False]]


def test_select_levels_takes_the_least_mean_and_leaves_empty_levels_to_the_end():
    losses = torch.tensor([[[4.0, 6.0], [1.0, 2.0], [INF, INF], [3.0, INF]]])
    assert select_levels(losses, 2).tolist() == [[1, 3]]
    assert select_levels(losses, 4).tolist() == [[1, 3, 0, 2]]


def test_cost_by_hand():
    # S_f = 3, S_m = sigmoid(1); equal losses: sqrt(2 * sigmoid(0)) = 1.
    cost = alignment_cost(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0]))
    expected = [math.sqrt(3 / (1 + math.exp(-1))), 1.0]
    assert cost.tolist() == pytest.approx(expected)


def test_misalignment_raises_the_cost_at_equal_fitness():
    cost = alignment_cost(torch.tensor([1.0, 0.5, 0.0]), torch.tensor([1.0, 1.5, 2.0]))
    assert cost[0] < cost[1] < cost[2]


def test_softmax_fitness_by_hand():
    cls_loss = torch.tensor([[0.0, math.log(3.0), 99.0]])
    reg_loss = torch.tensor([[math.log(4.0), 0.0, 99.0]])
    valid = torch.tensor([[True, True, False]])
    cls_term, reg_term = fitness(cls_loss, reg_loss, valid, "softmax")
    torch.testing.assert_close(cls_term, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(reg_term, torch.tensor([[0.8, 0.2, 0.0]]))
    assert not torch.cat(fitness(cls_loss, reg_loss, valid & False, "softmax")).any()


def test_regress_range_by_hand():
    # From (10, 10) the box reaches 10, 10, 90, 20: the longest is 90, the second range's.
    point, box = torch.tensor([[10.0, 10.0]]), torch.tensor([[0.0, 0.0, 100.0, 30.0]])
    ranges = torch.tensor([[-1.0, 64.0], [64.0, 128.0]])
    for level, inside in [(0, False), (1, True)]:
        assert within_regress_range(point, box, torch.tensor([level]), ranges).item() == inside


def test_more_levels_than_are_told_apart_count_as_the_last():
    strides = torch.arange(1.0, MAX_LEVELS + 5)
    levels = level_of_priors(strides)
    assert levels[:MAX_LEVELS].tolist() == list(range(MAX_LEVELS))
    assert (levels[MAX_LEVELS:] == MAX_LEVELS - 1).all()
    assert MAX_LEVELS == 16
    # A stride that comes back is a level of its own: what counts is that it changes.
    assert level_of_priors(torch.tensor([8.0, 16, 8])).tolist() == [0, 1, 2]


def test_both_bounds_of_a_range_are_in_it():
    point, box = torch.tensor([[64.0, 10.0]]), torch.tensor([[0.0, 0.0, 100.0, 30.0]])  # 64
    for low, high, inside in [(-1, 64, True), (64, 128, True), (65, 128, False), (-1, 63, False)]:
        ranges = torch.tensor([[float(low), float(high)]])
        assert within_regress_range(point, box, torch.tensor([0]), ranges).item() == inside
    # Each of the four distances can be the longest.
    box = torch.tensor([[0.0, 0.0, 100.0, 100.0]])
    for x, y in [(90.0, 50.0), (50.0, 90.0), (10.0, 50.0), (50.0, 10.0)]:
        ranges = torch.tensor([[90.0, 90.0]])
        point = torch.tensor([[x, y]])
        assert within_regress_range(point, box, torch.tensor([0]), ranges).item()


def test_a_cost_below_zero_by_rounding_is_zero():
    assert alignment_cost(torch.tensor([-1e-8]), torch.tensor([0.0])).tolist() == [0]


def test_what_is_not_valid_is_not_read():
    losses = torch.tensor([[1.0, math.nan, INF]])
    valid = torch.tensor([[True, False, False]])
    assert [part.tolist() for part in fitness(losses, losses, valid)] == [[[1, 0, 0]]] * 2
    assert [p.tolist() for p in fitness(losses, losses, valid, "softmax")] == [[[1, 0, 0]]] * 2
    with pytest.raises(ValueError, match="fitness"):
        fitness(losses, losses, valid, "mean")


def test_an_empty_level_is_not_chosen_before_one_with_a_candidate():
    losses = torch.tensor([[[INF, INF], [INF, INF], [9.0, INF]]])
    assert select_levels(losses, 1).tolist() == [[2]]
