"""The deformable convolution against a plain float64 loop and against mmcv's op."""

import math
from copy import deepcopy

import pytest
import torch
from mmcv.ops import deform_conv2d, modulated_deform_conv2d

from misalign_det.models.layers import (
    AutoDeformConv2d,
    deform_conv,
    deform_levels,
    sampled_deform_conv2d,
    takes_all_levels,
)
from misalign_det.models.layers.deform_conv import gathered_deform_conv2d


def loop_deform_conv(x, offset, weight):
    """Bilinear samples with zeros outside, one tap and one location at a time."""
    num, _, height, width = x.shape
    out = x.new_zeros(num, len(weight), height, width)
    for n in range(num):
        for i in range(height):
            for j in range(width):
                for tap in range(9):
                    y = i + tap // 3 - 1 + offset[n, 2 * tap, i, j].item()
                    x_ = j + tap % 3 - 1 + offset[n, 2 * tap + 1, i, j].item()
                    low_y, low_x = math.floor(y), math.floor(x_)
                    for cy in (low_y, low_y + 1):
                        for cx in (low_x, low_x + 1):
                            if 0 <= cy < height and 0 <= cx < width:
                                share = (1 - abs(y - cy)) * (1 - abs(x_ - cx))
                                kernel = weight[:, :, tap // 3, tap % 3]
                                out[n, :, i, j] += share * kernel @ x[n, :, cy, cx]
    return out


def inputs(height, width, dtype, spread=2.0, channels=3):
    torch.manual_seed(0)
    x = torch.randn(2, channels, height, width, dtype=dtype)
    offset = torch.randn(2, 18, height, width, dtype=dtype) * spread
    return x, offset, torch.randn(4, channels, 3, 3, dtype=dtype)


both_forms = pytest.mark.parametrize("form", [gathered_deform_conv2d, sampled_deform_conv2d])


@both_forms
@pytest.mark.parametrize("channels", [3, 48])
@pytest.mark.parametrize("height, width", [(4, 5), (1, 6), (5, 1), (1, 1)])
def test_values_equal_a_plain_float64_loop(form, height, width, channels):
    args = inputs(height, width, torch.float64, channels=channels)
    torch.testing.assert_close(form(*args), loop_deform_conv(*args))


@both_forms
@pytest.mark.parametrize("needed", [(0, 1, 2, 3), (0, 2), (1,), (3,)])
def test_gradients_against_finite_differences_in_float64(form, needed):
    args = [*inputs(3, 3, torch.float64), torch.rand(2, 9, 3, 3, dtype=torch.float64)]
    args = [arg.requires_grad_(i in needed) for i, arg in enumerate(args)]
    assert torch.autograd.gradcheck(form, args)


@both_forms
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [3, 48])
def test_values_and_gradients_equal_mmcvs_op(form, layout, channels):
    args = inputs(6, 7, torch.float32, channels=channels)
    ours = [arg.to(memory_format=layout).requires_grad_() for arg in args]
    theirs = [arg.detach().contiguous().clone().requires_grad_() for arg in ours]
    out = form(*ours)
    expected = deform_conv2d(*theirs, 1, 1, 1, 1, 1, False, 1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-3)


@both_forms
def test_zero_offsets_are_a_plain_convolution(form):
    x, offset, weight = inputs(5, 6, torch.float32)
    expected = torch.nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(form(x, offset * 0, weight), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reach", [0.0, 0.7, 40.0, 1e9])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 4)])
@pytest.mark.parametrize("modulated", [False, True])
def test_gathered_form_equals_the_sampled_one(dtype, reach, size, modulated):
    """Samples inside, across the border and far outside; maps of one location."""
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, *size, dtype=dtype), torch.randn(5, 4, 3, 3)
    wide = torch.promote_types(dtype, torch.float32)
    offset = torch.randn(3, 18, *size, dtype=wide) * reach
    mask = torch.rand(3, 9, *size, dtype=wide) if modulated else None
    weight = weight.to(wide)
    mine, other = (form(x, offset, weight, mask)
                   for form in (gathered_deform_conv2d, sampled_deform_conv2d))  # fmt: skip
    assert mine.dtype == dtype and mine.shape == (3, 5, *size)
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def test_broken_offsets_give_broken_values_where_they_are():
    """And no memory outside the map is read."""
    x, offset, weight = inputs(4, 5, torch.float32)
    offset[1, 3, 2, 2], offset[0, 0, 0, 0] = math.nan, math.inf
    out = gathered_deform_conv2d(x, offset, weight)
    broken = out.isnan().any(dim=1)
    assert broken.nonzero().tolist() == [[1, 2, 2]]


def test_export_takes_the_sampled_form(monkeypatch):
    layer = AutoDeformConv2d(3, 4)
    x, offset, _ = inputs(6, 7, torch.float32)
    expected = layer(x, offset)
    monkeypatch.setattr(deform_conv, "gathered_deform_conv2d", None)
    traced = torch.jit.trace(layer, (x, offset), check_trace=False)
    assert "grid_sampler" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x, offset), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.parametrize("batch", [1, 2, 3, 16, 33])
def test_cuda_op_equals_the_sampled_form(batch):
    layer = AutoDeformConv2d(8, 16).cuda()
    x = torch.randn(batch, 8, 12, 10, device="cuda")
    offset = torch.randn(batch, 18, 12, 10, device="cuda") * 3
    expected = sampled_deform_conv2d(x, offset, layer.weight)
    torch.testing.assert_close(layer(x, offset), expected, rtol=1e-3, atol=1e-3)


def test_an_empty_batch():
    layer = AutoDeformConv2d(3, 4)
    out = layer(torch.ones(0, 3, 6, 7), torch.ones(0, 18, 6, 7))
    out.sum().backward()
    assert out.shape == (0, 4, 6, 7) and not layer.weight.grad.any()


@pytest.mark.cuda
@pytest.mark.parametrize("with_triton", [False, True])
def test_an_empty_batch_on_cuda(monkeypatch, with_triton):
    if not with_triton:
        monkeypatch.setattr(deform_conv, "has_triton", lambda *args: False)
    layer = AutoDeformConv2d(3, 4).cuda()
    x, offset = torch.ones(0, 3, 6, 7).cuda(), torch.ones(0, 18, 6, 7).cuda()
    out = layer(x.requires_grad_(), offset)
    out.sum().backward()
    assert out.shape == (0, 4, 6, 7) and x.grad.shape == x.shape
    assert not layer.weight.grad.any()


def on_cuda(layer, x, offset, grad, autocast=None):
    """Output and gradients of weight, features and offsets, on the CPU."""
    layer = deepcopy(layer).cuda()
    x, offset = (part.detach().clone().cuda().requires_grad_() for part in (x, offset))
    with torch.autocast("cuda", dtype=autocast or torch.float16, enabled=autocast is not None):
        out = layer(x, offset)
    torch.autograd.backward([out], [grad.to(out.dtype).cuda()])
    return [part.detach().cpu() for part in (out, layer.weight.grad, x.grad, offset.grad)]


@pytest.mark.cuda
@pytest.mark.parametrize("with_triton", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_on_cuda(monkeypatch, dtype, with_triton):
    """Dtypes: the output has that of a convolution, each gradient that of its tensor."""
    if not with_triton:
        monkeypatch.setattr(deform_conv, "has_triton", lambda *args: False)
    layer, (x, offset, _) = AutoDeformConv2d(3, 4), inputs(6, 7, torch.float32)
    grad = torch.randn(2, 4, 6, 7)
    found = on_cuda(layer, x, offset, grad, dtype)
    assert [part.dtype for part in found] == [dtype, *3 * [torch.float32]]
    for half, full in zip(found, on_cuda(layer, x, offset, grad)):
        assert (half.float() - full).norm() / full.norm() < 2 * torch.finfo(dtype).eps


@pytest.mark.cuda
def test_autocast_leaves_float64_alone():
    layer, (x, offset, _) = AutoDeformConv2d(3, 4).double(), inputs(6, 7, torch.float64)
    with torch.autocast("cuda"):
        out = deepcopy(layer).cuda()(x.cuda(), offset.cuda())
    torch.testing.assert_close(out.cpu(), layer(x, offset), rtol=1e-10, atol=1e-10)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_some_locations_on_cuda(dtype):
    layer, (x, offset, _) = AutoDeformConv2d(3, 4), inputs(4, 7, torch.float32)
    locations = torch.tensor([3, 17, 29, 55])
    with torch.no_grad():
        expected = layer.at(x, offset, locations)
        layer, args = layer.cuda(), [part.cuda() for part in (x, offset, locations)]
        with torch.autocast("cuda", dtype=torch.float16, enabled=dtype == torch.float16):
            found = layer.at(*args)
    assert found.dtype == x.dtype  # into which TripleHead puts them
    assert (found.cpu() - expected).norm() / expected.norm() < 2e-3
    args[0].requires_grad_()
    layer.at(*args).sum().backward()
    assert args[0].grad.any()


def counted(device, run):
    with device.count() as counts:
        out = run()
    assert not counts.num_syncs and not counts.problems
    return out, counts.num_launches


@pytest.mark.cuda
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_few_launches_and_no_host_sync(simulated_cuda, layout, autocast):
    """Copies of features and weight into channels-last memory, samples, product; backward alike."""
    if simulated_cuda is None:
        return  # counted without a GPU
    layer, (x, offset, _) = AutoDeformConv2d(3, 4).cuda(), inputs(6, 7, torch.float32)
    x, offset = x.cuda().to(memory_format=layout).requires_grad_(), offset.cuda().requires_grad_()
    grad = torch.ones(2, 4, 6, 7).cuda().to(torch.float16 if autocast else torch.float32)
    with torch.autocast("cuda", enabled=autocast):
        out, forward = counted(simulated_cuda, lambda: layer(x, offset))
    needed = [layer.weight, x, offset]
    _, backward = counted(simulated_cuda, lambda: torch.autograd.grad([out], needed, [grad]))
    assert forward <= 4 and backward <= 8
    with torch.no_grad():
        locations = torch.arange(5, device="cuda")
        _, sparse = counted(simulated_cuda, lambda: layer.at(x, offset, locations))
    assert sparse <= 4


@pytest.mark.cuda
@pytest.mark.parametrize("with_triton", [False, True])
def test_deterministic_mode_trains_on_cuda(monkeypatch, with_triton):
    if not with_triton:
        monkeypatch.setattr(deform_conv, "has_triton", lambda *args: False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(deform_conv, "mmcv_deform_conv2d", None)  # adds in an order that changes
    layer, (x, offset, _) = AutoDeformConv2d(3, 4), inputs(6, 7, torch.float32)
    grad = torch.randn(2, 4, 6, 7)
    expected = [x.requires_grad_(), offset.requires_grad_()]
    layer(x, offset).backward(grad)
    expected = [layer.weight.grad.clone(), x.grad, offset.grad]
    torch.use_deterministic_algorithms(True)
    try:
        first, again = (on_cuda(layer, x, offset, grad)[1:] for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for mine, same, other in zip(first, again, expected):
        assert torch.equal(mine, same)
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_compiled_step_breaks_around_the_kernels(monkeypatch, kernel_device):
    monkeypatch.setattr(deform_conv, "has_triton", lambda *args: True)
    x, offset, weight = (part.to(kernel_device) for part in inputs(6, 7, torch.float32))
    expected = gathered_deform_conv2d(x, offset, weight)

    @torch.compile(backend="eager")
    def step(x, offset, weight):
        out = deform_conv._deform_conv2d_on_cuda(x * 1, offset, weight, None, None, x.dtype)
        return out * 1

    out = step(x, offset, weight.requires_grad_())
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    out.sum().backward()
    assert weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_with_float32_offsets(dtype):
    layer = AutoDeformConv2d(3, 4)
    x, offset, _ = inputs(6, 7, torch.float32)
    out = layer(x.to(dtype), offset)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.float(), layer(x.to(dtype).float(), offset), rtol=1e-2, atol=1e-2
    )


def test_autocast_does_not_reach_the_sample_positions():
    layer = AutoDeformConv2d(3, 4)
    x, offset, _ = inputs(6, 7, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x, offset)
    torch.testing.assert_close(out, layer(x, offset))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("chosen", [[], [0], [3, 17, 29, 55]])
def test_some_locations_alone(dtype, chosen):
    layer = AutoDeformConv2d(3, 4).to(torch.promote_types(dtype, torch.float32))
    x, offset, _ = inputs(4, 7, dtype)  # two maps of 28 locations
    locations = torch.tensor(chosen, dtype=torch.long)
    everywhere = layer(x, offset).permute(0, 2, 3, 1).reshape(-1, 4)
    mine = layer.at(x, offset, locations)
    assert mine.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(mine, everywhere[locations], rtol=tolerance, atol=tolerance)


def test_some_locations_of_a_wide_map_in_half_precision():
    """A quarter cell beside column 150, where bfloat16 resolves whole cells only."""
    layer = AutoDeformConv2d(1, 1)
    layer.weight.data.zero_()[0, 0, 1, 1] = 1
    x = (torch.arange(200) % 2).to(torch.bfloat16).expand(1, 1, 3, 200)
    offset = torch.full((1, 18, 3, 200), 0.25, dtype=torch.bfloat16)
    found = layer.at(x, offset, torch.tensor([150, 151, 200 + 150]))
    assert found.dtype == torch.bfloat16 and found.flatten().tolist() == [0.25, 0.75, 0.25]


@torch.no_grad()
def test_autocast_does_not_reach_some_locations():
    layer, (x, offset, _) = AutoDeformConv2d(3, 4), inputs(6, 7, torch.float32)
    locations = torch.tensor([3, 50])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.at(x, offset, locations)
    assert torch.equal(found, layer.at(x, offset, locations))


@torch.no_grad()
@pytest.mark.parametrize("exports", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offsets_and_factors_reach_every_form(monkeypatch, exports, dtype):
    """In half precision too, more precisely than half precision."""
    x, offset, weight = inputs(6, 7, torch.float32)
    mask = torch.rand(2, 9, 6, 7).to(dtype)
    offset = offset.to(dtype)
    expected = modulated_deform_conv2d(x, offset.float(), mask.float(), weight, None, 1, 1, 1, 1, 1)
    monkeypatch.setattr(deform_conv, "exporting", lambda: exports)
    found = deform_conv.auto_deform_conv2d(x, offset, weight, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


LEVELS = [(5, 6), (3, 3), (1, 2)]


def pyramid(num=2):
    torch.manual_seed(0)
    xs = [torch.randn(num, 3, *size) for size in LEVELS]
    return xs, [torch.randn(num, 18, *size) * 2 for size in LEVELS]


@pytest.mark.cuda
def test_levels_on_cuda_are_those_of_the_layer():
    layer, (xs, offsets) = AutoDeformConv2d(3, 4), pyramid()
    grads = [torch.randn(2, 4, *size) for size in LEVELS]
    everything = [layer.weight, *xs, *offsets]
    needed = [part.requires_grad_() for part in everything]
    outs = [layer(x, offset).relu() for x, offset in zip(xs, offsets)]
    expected = torch.autograd.grad(outs, needed, grads)
    layer = deepcopy(layer).cuda()
    xs, offsets = ([part.detach().cuda().requires_grad_() for part in p] for p in (xs, offsets))
    mine = deform_levels(xs, offsets, layer.weight, activation=torch.relu)
    found = torch.autograd.grad(mine, [layer.weight, *xs, *offsets], [g.cuda() for g in grads])
    for one, other in zip([*mine, *found], [*outs, *expected], strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-3)


@pytest.mark.cuda
def test_levels_share_a_product(simulated_cuda):
    if simulated_cuda is None:
        return  # counted without a GPU
    layer, (xs, offsets) = AutoDeformConv2d(3, 4).cuda(), pyramid()
    xs, offsets = ([part.cuda().requires_grad_() for part in p] for p in (xs, offsets))
    with simulated_cuda.count() as counts:
        outs = deform_levels(xs, offsets, layer.weight, activation=torch.relu)
    assert counts.launches_by_operator()["mm"] == 1
    assert counts.num_launches == 3 + 3 + 3  # features and samples a level; weight, product, ReLU
    grads = [torch.ones_like(out, memory_format=torch.channels_last) for out in outs]
    with simulated_cuda.count() as counts:
        torch.autograd.grad(outs, [layer.weight, *xs, *offsets], grads)
    assert counts.launches_by_operator()["mm"] == 2 and counts.num_launches <= 2 * 3 + 6


@pytest.mark.cuda
def test_levels_are_taken_at_once_unless_hooks_or_a_trace_need_the_calls(monkeypatch):
    layer, x = AutoDeformConv2d(3, 4), torch.zeros(1, 3, 4, 4)
    assert not takes_all_levels(layer, x) and takes_all_levels(layer.cuda(), x.cuda())
    for register in (layer.register_forward_hook, layer.register_forward_pre_hook):
        handle = register(lambda *args: None)
        assert not takes_all_levels(layer, x.cuda())
        handle.remove()
    for name, value in (("exporting", True), ("has_triton", False)):
        with monkeypatch.context() as patch:
            patch.setattr(deform_conv, name, lambda *args, value=value: value)
            assert not takes_all_levels(layer, x.cuda())
