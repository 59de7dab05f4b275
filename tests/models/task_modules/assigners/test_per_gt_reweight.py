"""What each GT weighs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from misalign_det.models.task_modules.assigners import per_gt_reweight
from misalign_det.models.task_modules.assigners.ambiguity import BatchAssignResult
from misalign_det.models.task_modules.assigners.per_gt_reweight import reweight_per_gt


def edges(weights):
    columns = len(weights[0]) if weights else 2
    weights = torch.tensor(weights, dtype=torch.float32).reshape(-1, columns)
    shape, locations = weights.shape, torch.zeros(9, dtype=torch.bool)
    return BatchAssignResult(
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape),
        weights,
        torch.zeros(shape, dtype=torch.bool),
        locations,
        torch.zeros(len(weights)),
        locations,
    )


def test_by_hand():
    """Four positives against one: each GT ends with half of the five."""
    balanced = reweight_per_gt(edges([[1, 1, 1, 1], [1, 0, 0, 0]]), 1.0).weights
    torch.testing.assert_close(balanced, torch.tensor([[0.625] * 4, [2.5, 0, 0, 0]]))
    # power 0.5: 4 / sqrt(4) = 2 against 1, shares of 2/3 and 1/3 of five
    balanced = reweight_per_gt(edges([[1, 1, 1, 1], [1, 0, 0, 0]]), 0.5).weights
    torch.testing.assert_close(balanced.sum(1), torch.tensor([10 / 3, 5 / 3]))


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=4, max_size=4), max_size=6),
    st.floats(0, 1),
)
def test_total_and_positives_stay(weights, power):
    before = edges(weights)
    after = reweight_per_gt(before, power).weights
    assert after.isfinite().all()
    torch.testing.assert_close(after.sum(), before.weights.sum())
    assert torch.equal(after > 0, before.weights > 0)
    if power == 0:
        torch.testing.assert_close(after, before.weights)


@pytest.mark.parametrize("weights", [[], [[0.0, 0.0]]])
def test_no_positive(weights):
    assert reweight_per_gt(edges(weights), 1.0).weights.sum() == 0


def reductions(monkeypatch, others):
    """The sums that this process hands to the reduction, averaged there with another one's."""
    seen = []

    def reduce(sums):
        seen.append(sums.tolist())
        return (sums + torch.tensor(others)) / 2

    monkeypatch.setattr(per_gt_reweight, "reduce_mean", reduce)
    return seen


def test_the_total_is_that_of_all_processes(monkeypatch):
    """Here 4 + 1 before and 1 + 1 after, on the other process 1 and 1: a factor of 6 / 3."""
    seen = reductions(monkeypatch, [1.0, 1.0])
    balanced = reweight_per_gt(edges([[1, 1, 1, 1], [1, 0, 0, 0]]), 1.0).weights
    torch.testing.assert_close(balanced, torch.tensor([[0.5] * 4, [2.0, 0, 0, 0]]))
    assert seen == [[5, 2]]


def test_a_process_without_positives_reduces_all_the_same(monkeypatch):
    seen = reductions(monkeypatch, [5.0, 2.0])
    for weights in ([], [[0.0, 0.0]]):
        assert not reweight_per_gt(edges(weights), 1.0).weights.any()
    assert seen == [[0, 0], [0, 0]]


def test_alone_nothing_is_reduced(monkeypatch):
    monkeypatch.setattr(per_gt_reweight, "reduce_mean", None)
    balanced = reweight_per_gt(
        edges([[1, 1, 1, 1], [1, 0, 0, 0]]), 1.0, over_processes=False
    ).weights
    torch.testing.assert_close(balanced, torch.tensor([[0.625] * 4, [2.5, 0, 0, 0]]))
