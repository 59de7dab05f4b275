"""Samples as rows of channels: a plain unfold at zero offsets, sums by cell, weights of a tap."""

import pytest
import torch
import torch.nn.functional as F

from misalign_det.models.layers import deform_im2col_cpu
from misalign_det.models.layers.deform_im2col_cpu import corners, sample_taps, sum_by_cell


def test_zero_offsets_are_an_unfold():
    torch.manual_seed(0)
    x, mask = torch.randn(2, 3, 4, 5), torch.rand(2, 9, 4, 5)
    unfolded = F.unfold(x, 3, padding=1).view(2, 3, 9, 20)  # channels, taps, locations
    expected = unfolded.permute(0, 3, 2, 1).reshape(40, 9, 3)
    offset = torch.zeros(2, 18, 4, 5)
    assert torch.equal(sample_taps(x, offset), expected)
    factor = mask.permute(0, 2, 3, 1).reshape(40, 9, 1)
    torch.testing.assert_close(sample_taps(x, offset, mask), expected * factor)
    some = torch.tensor([39, 0, 17])
    torch.testing.assert_close(sample_taps(x, offset, mask, some), (expected * factor)[some])


def test_cells_and_weights_of_a_tap_by_hand():
    """The upper left tap of the second image's last location, in maps of 2 x 3 cells."""
    shift = torch.zeros(1, 9, 2)
    shift[0, 0] = torch.tensor([0.25, -0.5])  # from (0, 1) to row 0.25, column 0.5
    index, share = corners(shift, torch.tensor([11], dtype=torch.int32), 2, 3)
    first = 4 * 5 + 5 + 1  # the second bordered map, its second row, its second column
    assert index[0, 0].tolist() == [first, first + 1, first + 5, first + 6]
    assert share[0, 0].tolist() == [0.375, 0.375, 0.125, 0.125]


@pytest.mark.parametrize("value", [float("nan"), 1e9, -1e9])
def test_any_offset_has_cells_inside_the_bordered_maps(value):
    index, _ = corners(torch.full((6, 9, 2), value), torch.arange(6, dtype=torch.int32), 2, 3)
    assert index.min() >= 0 and index.max() < 4 * 5


@pytest.mark.skipif(
    deform_im2col_cpu.WEIGHTS_NEED_A_TABLE_WITH_GRADIENT,
    reason="this torch is the one that is imitated",
)
@pytest.mark.parametrize("grad", [True, False])
def test_gradients_where_torch_has_none_of_the_weights_alone(monkeypatch, grad):
    """As torch 2.1: the table that embedding_bag gets then requires a gradient, and gets none."""
    torch.manual_seed(0)
    real, tables = F.embedding_bag, []

    def embedding_bag(index, table, *args, **kwargs):
        tables.append(table)
        return real(index, table, *args, **kwargs)

    found = []
    for needed in (False, True):
        monkeypatch.setattr(deform_im2col_cpu, "WEIGHTS_NEED_A_TABLE_WITH_GRADIENT", needed)
        monkeypatch.setattr(deform_im2col_cpu.F, "embedding_bag", embedding_bag)
        x = torch.arange(24.0).view(1, 2, 3, 4).requires_grad_()
        offset = torch.full((1, 18, 3, 4), 0.3, requires_grad=grad)
        samples = sample_taps(x, offset)
        assert tables[-1].requires_grad == (needed and grad) and tables[-1].grad_fn is None
        samples.square().sum().backward()
        found.append((samples.detach(), x.grad, offset.grad))
    for before, after in zip(*found):
        assert before is after is None or torch.equal(before, after)


def test_the_probe_of_this_torch():
    """Elsewhere than in torch 2.1 the table needs no gradient, which would take half as long again.

    What it says holds in any gradient mode, and it leaves none behind.
    """
    release = tuple(map(int, torch.__version__.split(".")[:2]))
    found = deform_im2col_cpu.WEIGHTS_NEED_A_TABLE_WITH_GRADIENT
    assert found == (release < (2, 2)) or (2, 2) <= release < (2, 6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert deform_im2col_cpu._weights_need_a_table_with_gradient() == found
            assert not torch.is_grad_enabled()
    offset = torch.full((1, 18, 3, 4), 0.3, requires_grad=True)
    sample_taps(torch.arange(24.0).view(1, 2, 3, 4), offset).square().sum().backward()
    assert offset.grad.abs().max() > 0


def test_sums_by_cell():
    torch.manual_seed(0)
    rows, share = torch.randn(50, 3).double(), torch.rand(50, 4).double()
    index = torch.randint(0, 11, (50, 4), dtype=torch.int32)
    expected = torch.zeros(12, 3).double()  # nothing is added to the last cell
    expected.index_add_(0, index.flatten().long(), (share[..., None] * rows[:, None]).flatten(0, 1))
    torch.testing.assert_close(sum_by_cell(rows, index, share, 12), expected)
