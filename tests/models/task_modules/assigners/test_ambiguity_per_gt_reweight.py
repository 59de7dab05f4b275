"""Weights of GTs: by hand, as properties, and over two processes."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.paths import HELPERS
from hypothesis import given, settings
from hypothesis import strategies as st

from misalign_det.models.task_modules.assigners import ambiguity
from misalign_det.models.task_modules.assigners.ambiguity import BatchAssignResult, reweight_per_gt

SCRIPT = HELPERS / "per_gt_reweight_step.py"


def result_of(weights):
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
    balanced = reweight_per_gt(result_of([[1, 1, 1, 1], [1, 0, 0, 0]]), 1.0).weights
    torch.testing.assert_close(balanced, torch.tensor([[0.625] * 4, [2.5, 0, 0, 0]]))
    # power 0.5: 4 / sqrt(4) = 2 against 1, shares of 2/3 and 1/3 of five
    balanced = reweight_per_gt(result_of([[1, 1, 1, 1], [1, 0, 0, 0]]), 0.5).weights
    torch.testing.assert_close(balanced.sum(1), torch.tensor([10 / 3, 5 / 3]))


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=4, max_size=4), max_size=6),
    st.floats(0, 1),
)
def test_total_and_positives_stay(weights, power):
    before = result_of(weights)
    after = reweight_per_gt(before, power).weights
    assert after.isfinite().all()
    torch.testing.assert_close(after.sum(), before.weights.sum())
    assert torch.equal(after > 0, before.weights > 0)
    if power == 0:
        torch.testing.assert_close(after, before.weights)


@pytest.mark.parametrize("weights", [[], [[0.0, 0.0]]])
def test_no_positive(weights):
    assert reweight_per_gt(result_of(weights), 1.0).weights.sum() == 0


def reductions(monkeypatch, others):
    """The sums that this process hands to the reduction, averaged there with another one's."""
    seen = []

    def reduce(sums):
        seen.append(sums.tolist())
        return (sums + torch.tensor(others)) / 2

    monkeypatch.setattr(ambiguity, "reduce_mean", reduce)
    return seen


def test_the_total_is_that_of_all_processes(monkeypatch):
    """Here 4 + 1 before and 1 + 1 after, on the other process 1 and 1: a factor of 6 / 3."""
    seen = reductions(monkeypatch, [1.0, 1.0])
    balanced = reweight_per_gt(result_of([[1, 1, 1, 1], [1, 0, 0, 0]]), 1.0).weights
    torch.testing.assert_close(balanced, torch.tensor([[0.5] * 4, [2.0, 0, 0, 0]]))
    assert seen == [[5, 2]]


def test_a_process_without_positives_reduces_all_the_same(monkeypatch):
    seen = reductions(monkeypatch, [5.0, 2.0])
    for weights in ([], [[0.0, 0.0]]):
        assert not reweight_per_gt(result_of(weights), 1.0).weights.any()
    assert seen == [[0, 0], [0, 0]]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("two")
    processes, logs = [], []
    for rank in range(2):
        environ = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        command = [sys.executable, SCRIPT, folder / "store", folder / f"{rank}.pth"]
        logs.append(folder / f"{rank}.log")
        processes.append(
            subprocess.Popen(list(map(str, command)), env=environ, stdout=logs[-1].open("w"),
                             stderr=subprocess.STDOUT)
        )  # fmt: skip
    try:
        for process, log in zip(processes, logs):
            assert process.wait(timeout=1200) == 0, log.read_text()  # a hang ends after ten minutes
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


def test_the_total_is_that_of_both(found):
    # Four positives and one against one elsewhere: 6 before, 3 after, a factor of 2.
    torch.testing.assert_close(found[0]["both"], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(found[1]["both"], torch.tensor([2.0]))


def test_a_process_without_objects_or_locations_takes_part(found):
    torch.testing.assert_close(found[0]["one"], torch.tensor([2.5, 2.5]))
    torch.testing.assert_close(found[0]["no locations"], torch.tensor([2.5, 2.5]))
    assert found[1]["one"].shape == (0,) and found[1]["no locations"].tolist() == [0]


def test_image_by_image_nothing_is_waited_for(found):
    """The processes call assign two times and not at all."""
    torch.testing.assert_close(found[0]["image"], torch.tensor([4.0, 1.0]))
    assert found[1]["image"] is None
