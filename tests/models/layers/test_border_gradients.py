"""Deformable convolution where its value has a kink: taps exactly on cells and on the border."""

import pytest
import torch
from mmcv.ops import deform_conv2d, modulated_deform_conv2d

from misalign_det.models.layers import RFAConv2d, deform_conv
from misalign_det.models.layers.deform_conv import (
    gathered_deform_conv2d,
    mmcv_deform_conv2d,
    sampled_deform_conv2d,
)

MAP = torch.tensor([[1.0, 2, 4], [10, 20, 40], [100, 200, 400]]).view(1, 1, 3, 3)


def derivative(form, tap, axis):
    """Of the sum of a convolution with one tap alone by that tap's offset, offsets at zero."""
    offset = torch.zeros(1, 18, 3, 3, requires_grad=True)
    weight = torch.zeros(1, 1, 9)
    weight[..., tap] = 1
    form(MAP, offset, weight.view(1, 1, 3, 3)).sum().backward()
    return offset.grad[0, 2 * tap + axis].tolist()


def mmcvs_op(x, offset, weight):
    return deform_conv2d(x, offset, weight, 1, 1, 1, 1, 1, False, 1)


@pytest.mark.parametrize("form", [mmcvs_op, mmcv_deform_conv2d, gathered_deform_conv2d])
class TestByHand:
    def test_on_a_cell_it_is_the_one_towards_larger_offsets(self, form):
        below = [[9, 18, 36], [90, 180, 360], [-100, -200, -400]]  # after the last row come zeros
        assert derivative(form, 4, 0) == below
        assert derivative(form, 4, 1) == [[1, 2, -4], [10, 20, -40], [100, 200, -400]]

    def test_on_the_border_it_is_zero(self, form):
        assert derivative(form, 1, 0) == [[0, 0, 0], [9, 18, 36], [90, 180, 360]]  # row above
        assert derivative(form, 7, 0) == [[90, 180, 360], [-100, -200, -400], [0, 0, 0]]  # below
        assert derivative(form, 3, 1) == [[0, 1, 2], [0, 10, 20], [0, 100, 200]]  # left
        assert derivative(form, 5, 1) == [[2, -4, 0], [20, -40, 0], [200, -400, 0]]  # right

    def test_beyond_the_border_along_one_axis_it_is_zero_along_both(self, form):
        assert derivative(form, 1, 1)[0] == [0, 0, 0]
        assert derivative(form, 7, 1)[2] == [0, 0, 0]
        assert [row[0] for row in derivative(form, 3, 0)] == [0, 0, 0]
        assert [row[2] for row in derivative(form, 5, 0)] == [0, 0, 0]


def test_the_sampled_form_takes_other_sides():
    """It is for export. If it agrees one day, its docstring has to say so."""
    sides = [derivative(sampled_deform_conv2d, tap, 0) for tap in (1, 4, 7)]
    assert sides != [derivative(mmcvs_op, tap, 0) for tap in (1, 4, 7)]


def gradients(form, args, grad):
    args = [arg.detach().clone().requires_grad_() for arg in args]
    out = form(*args)
    out.backward(grad)
    return out, [arg.grad for arg in args]


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("size", [(4, 5), (3, 3), (1, 1), (1, 6), (5, 2)])
def test_all_gradients_are_mmcvs_on_a_lattice_of_half_cells(size, modulated):
    """Every offset puts its tap on a cell, halfway between two, on the border or beyond it."""
    torch.manual_seed(0)
    args = [
        torch.randn(2, 3, *size),
        torch.randint(-6, 7, (2, 18, *size)) / 2.0,
        torch.randn(4, 3, 3, 3),
        torch.rand(2, 9, *size),
    ][: 4 if modulated else 3]
    grad = torch.randn(2, 4, *size)
    out, found = gradients(gathered_deform_conv2d, args, grad)
    theirs, expected = gradients(mmcv_deform_conv2d, args, grad)
    torch.testing.assert_close(out, theirs, rtol=1e-5, atol=1e-5)
    for mine, other in zip(found, expected):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
def test_the_adaptors_first_gradient_is_mmcvs(monkeypatch, modulated):
    """When training starts its outer taps lie on the border."""
    torch.manual_seed(0)
    layer, x = RFAConv2d(4, 6, modulated=modulated), torch.randn(2, 4, 5, 4)
    grad, found = torch.randn(2, 6, 5, 4), {}
    for name in ("gathered", "mmcv"):
        layer.zero_grad()
        layer(x).backward(grad)
        found[name] = layer.conv_offset.weight.grad.clone()
        monkeypatch.setattr(deform_conv, "gathered_deform_conv2d", mmcv_deform_conv2d)
    assert found["mmcv"].any()
    torch.testing.assert_close(found["gathered"], found["mmcv"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("modulated", [False, True])
def test_mmcvs_op_reads_channels_last_memory(modulated):
    torch.manual_seed(0)
    args = [torch.randn(2, 18, 6, 5), torch.randn(2, 18, 6, 5), torch.randn(4, 18, 3, 3)]
    args += [torch.rand(2, 9, 6, 5)] if modulated else []
    grad = torch.randn(2, 4, 6, 5)
    expected, expected_grads = gradients(mmcv_deform_conv2d, args, grad)
    last = torch.channels_last
    args = [arg.to(memory_format=last) for arg in args]
    out, grads = gradients(mmcv_deform_conv2d, args, grad.to(memory_format=last))
    assert torch.equal(out, expected)
    for mine, other in zip(grads, expected_grads):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_mmcvs_modulated_op_agrees_with_its_own_call():
    torch.manual_seed(0)
    x, offset, weight = torch.randn(2, 3, 6, 7), torch.randn(2, 18, 6, 7), torch.randn(4, 3, 3, 3)
    mask = torch.rand(2, 9, 6, 7)
    expected = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 1, 1)
    assert torch.equal(mmcv_deform_conv2d(x, offset, weight, mask), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("size", [(6, 5), (1, 1), (2, 7)])
def test_channels_last_and_small_maps_on_cuda(size, modulated):
    torch.manual_seed(0)
    args = [torch.randn(2, 18, *size), torch.randn(2, 18, *size), torch.randn(4, 18, 3, 3)]
    args += [torch.rand(2, 9, *size)] if modulated else []
    grad = torch.randn(2, 4, *size)
    expected, expected_grads = gradients(gathered_deform_conv2d, args, grad)
    args = [arg.cuda().to(memory_format=torch.channels_last) for arg in args]
    out, grads = gradients(deform_conv.auto_deform_conv2d, args, grad.cuda())
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-3, atol=1e-3)
    for mine, other in zip(grads, expected_grads):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-3, atol=1e-3)
