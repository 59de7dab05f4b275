"""IoU block by block: the same numbers and pairs, and the memory that the assigners hold."""

import pytest
import torch
from helpers.iac_cases import COMMON, boxes, instances, predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules.assigners import ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes

from misalign_det.models.utils import blockwise_iou
from misalign_det.models.utils.blockwise_iou import OverlapsInBlocks, pairs_from
from misalign_det.utils.benchmark import peak_memory


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 40),
    st.sampled_from(["iou", "iof", "giou"]),
    st.sampled_from(["BboxOverlaps2D", "BboxOverlaps2D_GLIP"]),
    st.booleans(),
)
def test_blocks_give_mmdets_numbers(rows, columns, pairs, mode, kind, typed):
    calculator = TASK_UTILS.build(dict(type=kind))
    first, second = boxes(rows, 0), boxes(columns, 1)
    if kind == "BboxOverlaps2D" and typed:
        first, second = HorizontalBoxes(first), HorizontalBoxes(second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise_iou, "PAIRS", pairs)
        found = OverlapsInBlocks(calculator)(first, second, mode=mode)
    assert torch.equal(found, calculator(first, second, mode=mode))


def test_no_call_compares_more_pairs(monkeypatch):
    sizes = []

    def calculator(first, second):
        sizes.append(len(first) * len(second))
        return torch.full((len(first), len(second)), float(len(sizes)), dtype=torch.float64)

    monkeypatch.setattr(blockwise_iou, "PAIRS", 20)
    found = OverlapsInBlocks(calculator)(boxes(10, 0), boxes(6, 1))
    assert sizes == [18, 18, 18, 6] and found.dtype == torch.float64
    assert found[:, 0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    OverlapsInBlocks(calculator)(boxes(2, 0), boxes(30, 1))
    assert sizes[4:] == [30, 30]  # at least one row


def test_pairs_of_equal_number_of_boxes():
    calculator = TASK_UTILS.build(dict(type="BboxOverlaps2D"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise_iou, "PAIRS", 2)
        found = OverlapsInBlocks(calculator)(boxes(6, 0), boxes(6, 1), is_aligned=True)
    assert torch.equal(found, calculator(boxes(6, 0), boxes(6, 1), is_aligned=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_pairs_in_order(rows, columns, flags, transposed):
    values = torch.rand(rows, columns, generator=torch.Generator().manual_seed(flags))
    values = values.T.contiguous().T if transposed else values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise_iou, "FLAGS", flags)
        found = pairs_from(values, 0.4)
    expected = (values >= 0.4).nonzero(as_tuple=True)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("num_gts", [60, 240])
def test_memory_beyond_the_matrix_of_max_iou_assigner(num_gts, monkeypatch):
    """mmdet's own takes 36 bytes per pair; here only one block does."""
    for name in ("PAIRS", "FLAGS"):
        monkeypatch.setattr(blockwise_iou, name, 2**16)
    priors, gts = boxes(12000, 0), instances(boxes(num_gts, 1))
    theirs = MaxIoUAssigner(**COMMON)
    ours = TASK_UTILS.build(dict(type="IACAssigner", min_iou=0.99, **COMMON))
    pred = predictions(priors, torch.ones(12000, 1))
    plain = peak_memory(lambda: theirs.assign(predictions(priors), gts))
    mine = peak_memory(lambda: ours.assign(pred, gts))
    matrix, for_each_prior = 4 * 12000 * num_gts, 100 * 12000
    assert plain > 8 * matrix
    assert mine < matrix + 40 * 2**16 + for_each_prior


def test_memory_of_atss_assigner(monkeypatch):
    """ATSS holds more than one matrix; nothing is added to them."""
    monkeypatch.setattr(blockwise_iou, "FLAGS", 2**16)
    priors, gts = boxes(12000, 0), instances(boxes(60, 1))
    theirs = ATSSAssigner(topk=3)
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=3, min_iou=0.99))
    pred = predictions(priors, torch.ones(12000, 1))
    plain = peak_memory(lambda: theirs.assign(predictions(priors), [12000], gts))
    mine = peak_memory(lambda: ours.assign(pred, [12000], gts))
    assert mine <= plain


def test_atss_compares_the_pairs_once(monkeypatch):
    ours = TASK_UTILS.build(dict(type="IACATSSAssigner", topk=3))
    calculator, calls = ours.iou_calculator.calculator, []
    monkeypatch.setattr(
        ours.iou_calculator, "calculator", lambda *args: calls.append(1) or calculator(*args)
    )
    pred = predictions(boxes(40, 0), torch.ones(40, 1))
    ours.assign(pred, [40], instances(boxes(5, 1)))
    assert len(calls) == 1 and ours.iou_calculator.kept is None
    del pred.scores
    with pytest.raises(KeyError):
        ours.scores = lambda prior_inds, labels: {}[len(labels)]
        ours.assign(pred, [40], instances(boxes(5, 1)))
    assert ours.iou_calculator.kept is None
