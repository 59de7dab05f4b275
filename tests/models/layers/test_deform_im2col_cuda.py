"""Deformable convolution by Triton kernels against mmcv's op, and its memory."""

import math

import pytest
import torch
from mmcv.ops import deform_conv2d, modulated_deform_conv2d

from misalign_det.models.layers import deform_im2col_cuda, deform_im2col_triton
from misalign_det.models.layers.deform_im2col_cuda import (
    as_maps,
    im2col_deform_conv2d,
    im2col_deform_conv2d_at,
)

modulations = pytest.mark.parametrize("modulated", [False, True])
HALF = (torch.float16, torch.bfloat16)


def inputs(size, modulated, dtype=torch.float32, num=2, channels=5, reach=2.0):
    """``x, offset, weight, mask`` and a gradient of the output."""
    torch.manual_seed(0)
    x, grad = torch.randn(num, channels, *size), torch.randn(num, 4, *size)
    offset, weight = torch.randn(num, 18, *size) * reach, torch.randn(4, channels, 3, 3)
    mask = torch.rand(num, 9, *size) if modulated else None
    wide = torch.promote_types(dtype, torch.float32)
    mask = None if mask is None else mask.to(wide)
    return [x.to(dtype), offset.to(wide), weight.to(wide), mask], grad.to(dtype)


def on_lattice(args):
    """Every tap on a cell, halfway between two, on the border or beyond it."""
    args[1] = torch.randint(-6, 7, args[1].shape).to(args[1].dtype) / 2
    return args


def mmcvs_op(x, offset, weight, mask):
    if mask is None:
        return deform_conv2d(x, offset, weight, 1, 1, 1, 1, 1, False, 1)
    return modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 1, 1)


def by_kernel(x, offset, weight, mask, dtype=None):
    masks = [] if mask is None else [mask]
    rows = im2col_deform_conv2d([x], [offset], weight, masks, None, dtype or x.dtype)
    return as_maps(rows, [x])[0]


def run(form, args, grad, device="cpu", needed=(0, 1, 2, 3)):
    """Output and gradients on the CPU, ``None`` for arguments without a gradient."""
    args = [None if arg is None else arg.detach().clone().to(device) for arg in args]
    for i in needed:
        if args[i] is not None:
            args[i].requires_grad_()
    out = form(*args)
    out.backward(grad.to(device))
    grads = [None if arg is None or arg.grad is None else arg.grad.cpu() for arg in args]
    return out.detach().cpu(), grads


def assert_equal(found, expected, tolerance):
    for mine, other in zip([found[0], *found[1]], [expected[0], *expected[1]]):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


@modulations
@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(6, 7), (3, 3), (4, 5)])
def test_values_and_all_gradients_are_mmcvs(kernel_device, size, dtype, lattice, modulated):
    args, grad = inputs(size, modulated, dtype)
    args = on_lattice(args) if lattice else args
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    expected = run(mmcvs_op, args, grad)
    assert all(other is None or other.any() for other in expected[1])
    assert_equal(run(by_kernel, args, grad, kernel_device), expected, tolerance)


@modulations
def test_far_outside_the_map_all_is_zero(kernel_device, modulated):
    args, grad = inputs((4, 5), modulated, reach=40.0)
    args[1][0, :4] = 1e9
    args[1][1, 5] = -1e30
    args[1][1, 7] = math.inf
    found = run(by_kernel, args, grad, kernel_device)
    args[1] = args[1].clamp(-1e4, 1e4)  # mmcv casts to int
    assert_equal(found, run(mmcvs_op, args, grad), 2e-5)


@modulations
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 2), (2, 2)])
def test_maps_smaller_than_the_kernel(kernel_device, size, modulated):
    """mmcv's op refuses them; on a zero-padded map its values are the same."""
    args, grad = inputs(size, modulated, torch.float64)
    args = on_lattice(args)
    found = run(by_kernel, args, grad, kernel_device)

    def padded(x, offset, weight, mask):
        wider = (0, 3 - min(3, size[1]), 0, 3 - min(3, size[0]))
        x, offset = (torch.nn.functional.pad(part, wider) for part in (x, offset))
        mask = None if mask is None else torch.nn.functional.pad(mask, wider)
        return mmcvs_op(x, offset, weight, mask)[..., : size[0], : size[1]]

    assert_equal(found, run(padded, args, grad), 1e-10)


@modulations
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_samples_and_product(kernel_device, dtype, modulated):
    args, grad = inputs((6, 7), modulated, dtype)
    out, grads = run(by_kernel, args, grad, kernel_device)
    assert out.dtype == dtype
    assert [g.dtype for g in grads if g is not None] == [a.dtype for a in args if a is not None]
    args[0] = args[0].float()
    exact = run(mmcvs_op, args, grad.float())
    for mine, other in zip([out, *grads], [exact[0], *exact[1]]):
        if other is not None:
            error = (mine.float() - other).norm() / other.norm()
            assert error < 2 * torch.finfo(dtype).eps


def test_positions_are_float32_in_half_precision(kernel_device):
    """A quarter cell beside column 150, where bfloat16 resolves whole cells only."""
    x = (torch.arange(200) % 2).to(torch.bfloat16).expand(1, 1, 1, 200)
    offset, weight = torch.full((1, 18, 1, 200), 0.25), torch.zeros(1, 1, 3, 3)
    offset[:, ::2] = 0
    weight[0, 0, 1, 1] = 1
    args = [arg.to(kernel_device) for arg in (x, offset, weight)]
    out = by_kernel(*args, None)
    assert out[0, 0, 0, 150:152].tolist() == [0.25, 0.75]


def test_the_dtype_of_the_product_can_be_lower_than_that_of_the_features(kernel_device):
    """As under autocast: gradients have the dtypes of their arguments."""
    args, grad = inputs((6, 7), True)

    def half(x, offset, weight, mask):
        return by_kernel(x, offset, weight, mask, torch.float16)

    out, grads = run(half, args, grad.half(), kernel_device)
    assert out.dtype == torch.float16 and all(g.dtype == torch.float32 for g in grads)
    exact, exact_grads = run(mmcvs_op, args, grad)
    for mine, other in zip([out, *grads], [exact, *exact_grads]):
        assert (mine.float() - other).norm() / other.norm() < 2e-3


@modulations
def test_broken_offsets_give_broken_values_where_they_are(kernel_device, modulated):
    args, grad = inputs((4, 5), modulated)
    args[1][1, 3, 2, 2], args[1][0, 8, 0, 4] = math.nan, math.nan
    out, grads = run(by_kernel, args, grad, kernel_device)
    assert out.isnan().any(dim=1).nonzero().tolist() == [[0, 0, 4], [1, 2, 2]]
    assert grads[1].isnan().any(dim=1).sum() == 2


@modulations
@pytest.mark.parametrize("blocks", [dict(SAMPLES=16, CHANNELS=8), dict(SAMPLES=32, CHANNELS=2)])
def test_blocks_of_samples_and_channels(kernel_device, monkeypatch, blocks, modulated):
    """Neither 81 samples nor five channels fill whole blocks."""
    monkeypatch.setattr(deform_im2col_triton, "_blocks", lambda count, channels: blocks)
    args, grad = inputs((3, 3), modulated, num=1)
    found = run(by_kernel, args, grad, kernel_device)
    assert_equal(found, run(mmcvs_op, args, grad), 2e-5)


@modulations
def test_a_small_buffer_is_filled_several_times(kernel_device, launched, monkeypatch, modulated):
    """Steps of seven locations, across rows and images."""
    monkeypatch.setattr(deform_im2col_cuda, "MAX_BYTES", 7 * 9 * 5 * 4 + 3)
    args, grad = inputs((3, 5), modulated)
    found = run(by_kernel, args, grad, kernel_device)
    names = [name for name, *_ in launched]
    assert names == 5 * ["_im2col"] + 5 * ["_im2col", "_col2im"]
    assert_equal(found, run(mmcvs_op, args, grad), 2e-5)


def test_a_buffer_smaller_than_one_location_holds_one(kernel_device, monkeypatch):
    monkeypatch.setattr(deform_im2col_cuda, "MAX_BYTES", 1)
    args, grad = inputs((1, 3), False, num=1)
    args[1].zero_()
    out, _ = run(by_kernel, args, grad, kernel_device)
    expected = torch.nn.functional.conv2d(args[0], args[2], padding=1)
    torch.testing.assert_close(out, expected)


def test_steps_in_half_precision_are_summed_in_float32(kernel_device, monkeypatch):
    """2048 + 1 + 1: float16 would stay at 2048."""
    monkeypatch.setattr(deform_im2col_cuda, "MAX_BYTES", 9 * 2)
    x = torch.tensor([2048.0, 1, 1]).half().view(1, 1, 1, 3)
    args = [x, torch.zeros(1, 18, 1, 3), torch.ones(1, 1, 3, 3), None]
    _, grads = run(by_kernel, args, torch.ones(1, 1, 1, 3).half(), kernel_device)
    assert grads[2][0, 0, 1, 1] == 2050


@pytest.mark.parametrize("batch", [2, 3, 16, 33])
def test_batches(kernel_device, batch):
    args, grad = inputs((3, 3), True, num=batch, channels=2)
    assert_equal(run(by_kernel, args, grad, kernel_device), run(mmcvs_op, args, grad), 2e-5)


@modulations
def test_an_empty_batch_has_zero_gradients(kernel_device, launched, modulated):
    args, grad = inputs((4, 5), modulated, num=0)
    out, grads = run(by_kernel, args, grad, kernel_device)
    assert out.shape == (0, 4, 4, 5) and not launched
    assert grads[0].shape == args[0].shape and grads[1].shape == args[1].shape
    assert grads[2].shape == args[2].shape and not grads[2].any()


@modulations
def test_memory_formats(kernel_device, modulated):
    args, grad = inputs((6, 7), modulated)
    expected = run(by_kernel, args, grad, kernel_device)
    last = [arg if arg is None else arg.to(memory_format=torch.channels_last) for arg in args]
    found = run(by_kernel, last, grad.to(memory_format=torch.channels_last), kernel_device)
    assert_equal(found, expected, 1e-6)
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out, _ in (expected, found))
    assert found[1][2].is_contiguous(memory_format=torch.channels_last)  # as the weight
    assert expected[1][2].is_contiguous()


def test_channels_last_features_are_read_where_they_are(kernel_device, launched):
    (x, offset, weight, _), _ = inputs((6, 7), False)
    offset, weight = offset.to(kernel_device), weight.to(kernel_device)
    for layout, same in ((torch.channels_last, True), (torch.contiguous_format, False)):
        features = x.to(kernel_device).to(memory_format=layout)
        by_kernel(features, offset, weight, None)
        _, (read, *_), _ = launched.pop()
        assert (read.data_ptr() == features.data_ptr()) == same


@modulations
@pytest.mark.parametrize("locations", [1000, 10])
def test_levels_side_by_side(kernel_device, monkeypatch, locations, modulated):
    """Ten locations per step: one step ends within a level, one contains the ends of two."""
    monkeypatch.setattr(deform_im2col_cuda, "MAX_BYTES", locations * 9 * 5 * 4)
    levels = [inputs(size, modulated) for size in ((4, 5), (3, 1), (1, 1), (2, 4))]
    weight = levels[0][0][2]
    sums, expected = torch.zeros_like(weight), []
    for (x, offset, _, mask), grad in levels:
        expected.append(run(by_kernel, [x, offset, weight, mask], grad, kernel_device))
        sums += expected[-1][1].pop(2)
    parts = [[part for part in (x, offset, mask) if part is not None]
             for (x, offset, _, mask), _ in levels]  # fmt: skip
    parts = [[part.to(kernel_device).requires_grad_() for part in level] for level in parts]
    weight = weight.to(kernel_device).requires_grad_()
    xs, offsets, *masks = zip(*parts)
    rows = im2col_deform_conv2d(xs, offsets, weight, *(masks or [[]]), None, torch.float32)
    outs = as_maps(rows, xs)
    torch.autograd.backward(outs, [grad.to(kernel_device) for _, grad in levels])
    torch.testing.assert_close(weight.grad.cpu(), sums, rtol=1e-4, atol=1e-4)
    for out, part, (other, grads) in zip(outs, parts, expected, strict=True):
        torch.testing.assert_close(out.detach().cpu(), other, rtol=1e-5, atol=1e-5)
        for mine, one in zip(part, [g for g in grads if g is not None], strict=True):
            torch.testing.assert_close(mine.grad.cpu(), one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_bias_is_part_of_the_product(kernel_device, dtype):
    args, grad = inputs((4, 5), False, dtype)
    bias = torch.randn(4, requires_grad=True)
    plain, _ = run(by_kernel, args, grad, kernel_device)
    x, offset, weight = (part.to(kernel_device) for part in args[:3])
    on_device = bias.detach().to(kernel_device).requires_grad_()
    rows = im2col_deform_conv2d([x], [offset], weight, [], on_device, dtype)
    out = as_maps(rows, [x])[0]
    out.backward(grad.to(kernel_device))
    assert out.dtype == dtype and on_device.grad.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    expected = plain + bias.detach().to(dtype)[:, None, None]
    torch.testing.assert_close(out.detach().cpu(), expected, rtol=tolerance, atol=tolerance)
    sums = grad.float().sum(dim=(0, 2, 3))
    torch.testing.assert_close(on_device.grad.cpu(), sums, rtol=1e-4, atol=1e-4)


def test_an_expanded_gradient(kernel_device):
    args, _ = inputs((4, 5), False)
    grad = torch.ones(()).expand(2, 4, 4, 5)
    assert_equal(run(by_kernel, args, grad, kernel_device), run(mmcvs_op, args, grad), 2e-5)


@pytest.mark.parametrize(
    "needed, kernels",
    [
        ((0,), [("_im2col", None, None), ("_col2im", True, False)]),
        ((1,), [("_im2col", None, None), ("_col2im", False, True)]),
        ((3,), [("_im2col", None, None), ("_col2im", False, True)]),
        ((2,), [("_im2col", None, None)] * 2),
        ((0, 1, 3), [("_im2col", None, None), ("_col2im", True, True)]),
        ((1, 2), [("_im2col", None, None)] * 2 + [("_col2im", False, True)]),
    ],
)
def test_only_needed_gradients_are_computed(kernel_device, launched, needed, kernels):
    args, grad = inputs((3, 4), True)
    _, expected = run(mmcvs_op, args, grad)
    _, grads = run(by_kernel, args, grad, kernel_device, needed)
    found = [(name, options.get("TO_X"), options.get("TO_OFFSET")) for name, _, options in launched]
    assert found == kernels
    assert [i for i, mine in enumerate(grads) if mine is not None] == list(needed)
    for i in needed:
        torch.testing.assert_close(grads[i], expected[i], rtol=2e-5, atol=2e-5)


def test_no_second_derivatives(kernel_device):
    (x, offset, weight, _), _ = inputs((3, 4), False)
    x = x.to(kernel_device).requires_grad_()
    out = by_kernel(x, offset.to(x.device), weight.to(x.device), None)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@modulations
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_deterministic_mode_adds_in_order(
    kernel_device, launched, deterministic, monkeypatch, dtype, modulated
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(deform_im2col_cuda, "MAX_BYTES", 20 * 9 * 5 * 4)
    args, grad = inputs((4, 5), modulated, dtype, reach=4.0)
    out, grads = run(by_kernel, args, grad, kernel_device)
    assert {options.get("TO_X") for *_, options in launched} == {None, False}
    args[0] = args[0].float()
    expected, expected_grads = run(mmcvs_op, args, grad.float())
    tolerance = 2e-6 if dtype == torch.float32 else 2e-3
    for mine, other in zip([out, *grads], [expected, *expected_grads]):
        if other is not None:
            assert (mine.float() - other).norm() / other.norm() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("batch", [1, 2, 8, 16, 32, 33])
@pytest.mark.parametrize("stride", [4, 8, 16, 32, 64, 128])
def test_the_buffer_stays_under_half_a_gibibyte(stride, batch, dtype):
    """At 800x1333 and 256 channels, and sample numbers fit 32 bits; nothing is allocated."""
    height, width = math.ceil(800 / stride), math.ceil(1344 / stride)
    features = torch.empty(batch, height, width, 256, dtype=dtype, device="meta")
    steps = list(deform_im2col_cuda._steps(features, batch * height * width))
    assert steps[0][0] == 0 and steps[-1][1] == batch * height * width
    assert all(before[1] == after[0] for before, after in zip(steps, steps[1:]))
    for first, last, samples in steps:
        assert samples.shape == (last - first, 9 * 256) and samples.dtype == dtype
        assert samples.numel() * samples.element_size() <= 2**29
        assert 9 * len(samples) < 2**31
    if batch <= 2 and stride >= 8 and dtype == torch.float32:
        assert len(steps) == 1


def test_some_locations_alone(kernel_device, launched):
    (x, offset, weight, _), _ = inputs((4, 7), False)
    expected = mmcvs_op(x, offset, weight, None).permute(0, 2, 3, 1).reshape(-1, 4)
    args = [arg.to(kernel_device) for arg in (x, offset, weight)]
    for chosen in ([], [0], [55, 3, 17, 29]):
        locations = torch.tensor(chosen, dtype=torch.long, device=kernel_device)
        found = im2col_deform_conv2d_at(*args, torch.float32, locations)
        torch.testing.assert_close(found.cpu(), expected[chosen], rtol=2e-5, atol=2e-5)
    assert [options["CHOSEN"] for *_, options in launched] == [True, True]


def test_some_locations_in_several_steps(kernel_device, launched, monkeypatch):
    monkeypatch.setattr(deform_im2col_cuda, "MAX_BYTES", 2 * 9 * 5 * 4)
    (x, offset, weight, _), _ = inputs((4, 7), False)
    expected = mmcvs_op(x, offset, weight, None).permute(0, 2, 3, 1).reshape(-1, 4)
    args = [arg.to(kernel_device) for arg in (x, offset, weight)]
    locations = torch.tensor([55, 3, 17, 29, 2], device=kernel_device)
    found = im2col_deform_conv2d_at(*args, torch.float32, locations)
    torch.testing.assert_close(found.cpu(), expected[locations.cpu()], rtol=2e-5, atol=2e-5)
    assert len(launched) == 3
