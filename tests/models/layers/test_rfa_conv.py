"""RFAConv2d: equal to a plain convolution at the start, to mmcv's modulated op after it."""

import math
from copy import deepcopy
from functools import partial

import pytest
import torch
from helpers.half_precision import FLOAT16
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmcv.ops import modulated_deform_conv2d
from mmengine.model.efficient_conv_bn_eval import efficient_conv_bn_eval_control
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from misalign_det.models.layers import (
    RFAConv2d,
    adapt_receptive_field,
    init_offsets,
    sampled_deform_conv2d,
)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_starts_as_the_plain_convolution_of_the_same_weights(modulated, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    layer = RFAConv2d(5, 7, bias=bias, modulated=modulated)
    missing = layer.load_state_dict(plain.state_dict(), strict=False)
    assert all("conv_offset" in key for key in missing.missing_keys)
    x = torch.randn(2, 5, 9, 8)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)


def test_modulated_samples_equal_mmcvs_op_in_values_and_gradients():
    torch.manual_seed(0)
    ours = [
        torch.randn(2, 3, 6, 7),
        torch.randn(2, 18, 6, 7) * 2,
        torch.randn(4, 3, 3, 3),
        torch.rand(2, 9, 6, 7),
    ]
    theirs = [part.clone().requires_grad_() for part in ours]
    ours = [part.requires_grad_() for part in ours]
    out = sampled_deform_conv2d(*ours)
    x, offset, weight, mask = theirs
    expected = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 1, 1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-3)


def test_every_parameter_gets_a_gradient_and_the_taps_move():
    torch.manual_seed(0)
    layer = RFAConv2d(4, 6, modulated=True)
    layer(torch.randn(2, 4, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
    nn.init.normal_(layer.conv_offset.weight, std=0.1)
    offset, mask = layer.offset_and_mask(torch.randn(1, 4, 8, 8))
    assert offset.any() and offset.shape == (1, 18, 8, 8)
    assert mask.shape == (1, 9, 8, 8) and 0 < mask.min() < mask.max() < 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, FLOAT16])
def test_autocast_keeps_the_offsets_in_float32(dtype):
    torch.manual_seed(0)
    layer = RFAConv2d(4, 6)
    nn.init.normal_(layer.conv_offset.weight, std=0.1)
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast("cpu", dtype=dtype):
        half = layer(x.to(dtype))
        assert layer.offset_and_mask(x.to(dtype))[0].dtype == torch.float32
    torch.testing.assert_close(half.float(), layer(x), rtol=0.1, atol=0.1)


def test_as_the_convolution_of_a_conv_module():
    module = ConvModule(4, 6, 3, padding=1, conv_cfg=dict(type="RFAConv2d", modulated=True))
    assert isinstance(module.conv, RFAConv2d) and module.conv.modulated
    assert module(torch.randn(1, 4, 5, 5)).shape == (1, 6, 5, 5)


@pytest.mark.parametrize("position, index", [("first", 0), ("last", 2)])
def test_adapt_changes_one_block(position, index):
    tower = nn.ModuleList(ConvModule(4 if i else 3, 4, 3, padding=1) for i in range(3))
    adapt_receptive_field(tower, position)
    assert [isinstance(block.conv, RFAConv2d) for block in tower] == [i == index for i in range(3)]
    assert tower[index].conv.in_channels == (3 if index == 0 else 4)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="3x3"):
        RFAConv2d(4, 4, stride=2)
    with pytest.raises(ValueError, match="position"):
        adapt_receptive_field([ConvModule(4, 4, 3, padding=1)], "middle")
    with pytest.raises(ValueError, match="stacked_convs"):
        adapt_receptive_field([])


def deformed_block(bias, modulated):
    """A layer whose taps have moved, and a batch norm with statistics; both in eval mode."""
    torch.manual_seed(0)
    conv, norm = RFAConv2d(4, 6, bias=bias, modulated=modulated), nn.BatchNorm2d(6)
    nn.init.normal_(conv.conv_offset.weight, std=0.3)
    for part in (norm.weight, norm.running_mean):
        nn.init.normal_(part)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return conv.eval(), norm.eval()


@torch.no_grad()
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_batch_norm_folded_into_it_keeps_the_taps(bias, modulated):
    conv, norm = deformed_block(bias, modulated)
    x = torch.randn(2, 4, 8, 9)
    expected = norm(conv(x))
    plain = norm(nn.functional.conv2d(x, conv.weight, conv.bias, padding=1))
    assert (expected - plain).abs().max() > 0.1
    module = ConvModule(4, 6, 3, padding=1, norm_cfg=dict(type="BN"), act_cfg=None, bias=bias)
    module.conv, module.bn = conv, norm
    module.eval().turn_on_efficient_conv_bn_eval(True)
    folded = {
        "mmcv, efficient": module,
        "mmengine, efficient": partial(efficient_conv_bn_eval_control, norm, conv),
        "torch, fused": fuse_conv_bn_eval(conv, norm),
        "mmcv, fused": fuse_conv_bn(deepcopy(nn.Sequential(conv, norm))),
    }
    for name, layer in folded.items():
        torch.testing.assert_close(
            layer(x), expected, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("modulated", [False, True])
def test_a_folded_batch_norm_trains_the_same_parameters(modulated):
    """As in tuning with frozen statistics, and while the batch norm itself trains."""
    for trains in (False, True):
        conv, norm = deformed_block(True, modulated)
        norm.train(trains)
        x, found = torch.randn(2, 4, 8, 9), []
        folded = partial(efficient_conv_bn_eval_control, norm, conv)
        for layer in (nn.Sequential(conv, norm), folded):
            conv.zero_grad()
            out = layer(x)
            out.square().sum().backward()
            found.append([out, *(p.grad.clone() for p in conv.parameters())])
        for mine, other in zip(*found):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_without_a_bias_in_the_block_there_is_none():
    for bias in (False, True):
        tower = [ConvModule(4, 4, 3, padding=1, bias=bias)]
        adapt_receptive_field(tower)
        assert (tower[0].conv.bias is not None) == bias


def test_defaults_are_the_papers():
    tower = nn.ModuleList(ConvModule(4, 4, 3, padding=1) for _ in range(2))
    adapt_receptive_field(tower)
    assert [isinstance(block.conv, RFAConv2d) for block in tower] == [True, False]
    assert not tower[0].conv.modulated and tower[0].conv.conv_offset.out_channels == 18
    assert RFAConv2d(4, 4).bias is not None and not RFAConv2d(4, 4).modulated


def test_init_offsets_puts_every_tap_back():
    layers = nn.Sequential(RFAConv2d(4, 4), nn.Conv2d(4, 4, 3), RFAConv2d(4, 4, modulated=True))
    for parameter in layers.parameters():
        nn.init.ones_(parameter)
    init_offsets(layers)
    for layer in layers:
        assert layer.weight.all() and layer.bias.all()
        if isinstance(layer, RFAConv2d):
            assert not any(p.any() for p in layer.conv_offset.parameters())


@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=1),
        dict(kernel_size=3, padding=1, conv_cfg=dict(type="DCNv2")),
        dict(kernel_size=3, padding=1, conv_cfg=dict(type="ConvAWS")),
        dict(kernel_size=3, padding=1, stride=2),
        dict(kernel_size=3, padding=1, groups=2),
        dict(kernel_size=3, padding=0),
    ],
    ids=str,
)
def test_only_a_plain_convolution_is_adapted(options):
    with pytest.raises(ValueError, match="Only a plain 3x3 Conv2d can be adapted"):
        adapt_receptive_field([ConvModule(4, 4, **options)])


def test_mmcvs_own_plain_convolution_is_adapted():
    tower = [ConvModule(4, 4, 3, padding=1, conv_cfg=dict(type="Conv"))]
    adapt_receptive_field(tower)
    assert isinstance(tower[0].conv, RFAConv2d)


@pytest.mark.parametrize(
    "changed", [dict(kernel_size=5), dict(stride=2), dict(padding=0), dict(dilation=2),
                dict(groups=2)]
)  # fmt: skip
def test_other_shapes_are_refused(changed):
    with pytest.raises(ValueError, match="3x3 convolution of stride 1, padding 1"):
        RFAConv2d(4, 4, **changed)


def test_factor_of_a_tap_lies_between_zero_and_two():
    layer = RFAConv2d(1, 1, modulated=True)
    nn.init.constant_(layer.conv_offset.bias, 1.0)
    offset, mask = layer.offset_and_mask(torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(mask, torch.full_like(mask, 2 / (1 + math.exp(-1))))
    assert (offset == 1).all()


def test_an_offset_moves_the_tap_it_belongs_to():
    """The centre tap alone, moved one row down and two columns to the left."""
    layer = RFAConv2d(1, 1, bias=True)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, 1, 1] = 1
    nn.init.constant_(layer.bias, 0.5)
    layer.conv_offset.bias.data[8:10] = torch.tensor([1.0, -2.0])
    x = torch.arange(12.0).view(1, 1, 3, 4)
    expected = torch.tensor([[0.0, 0, 4, 5], [0, 0, 8, 9], [0, 0, 0, 0]]) + 0.5
    torch.testing.assert_close(layer(x)[0, 0], expected)


def test_a_factor_weights_the_tap_it_belongs_to():
    """The centre tap alone, at a factor of 2 * sigmoid(log 3) = 1.5; the others stay at one."""
    layer = RFAConv2d(1, 1, modulated=True, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, 1, 1] = 1
    layer.conv_offset.bias.data[18 + 4] = math.log(3)
    x = torch.arange(12.0).view(1, 1, 3, 4)
    torch.testing.assert_close(layer(x), 1.5 * x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_bias_keeps_the_dtype_of_the_input(dtype):
    layer = RFAConv2d(2, 2)
    nn.init.ones_(layer.bias)
    out = layer._conv_forward(torch.zeros(1, 2, 3, 3, dtype=dtype), layer.weight, layer.bias)
    assert out.dtype == dtype and (out == 1).all()


@pytest.mark.parametrize("modulated", [False, True])
def test_adapt_passes_modulated_on(modulated):
    tower = [ConvModule(4, 4, 3, padding=1)]
    adapt_receptive_field(tower, "first", modulated)
    assert tower[0].conv.modulated == modulated


@pytest.mark.cuda
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("modulated", [False, True])
def test_on_cuda_values_and_gradients_are_the_cpus(modulated, bias, layout):
    torch.manual_seed(0)
    layer = RFAConv2d(4, 6, bias=bias, modulated=modulated)
    nn.init.normal_(layer.conv_offset.weight, std=0.3)
    x, grad = torch.randn(2, 4, 8, 9), torch.randn(2, 6, 8, 9)
    found = []
    for device in ("cpu", "cuda"):
        own = deepcopy(layer).to(device)
        features = x.clone().to(device).to(memory_format=layout).requires_grad_()
        out = own(features)
        torch.autograd.backward([out], [grad.to(device)])
        parts = [out.detach(), features.grad, *(p.grad for p in own.parameters())]
        found.append([part.cpu() for part in parts])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-3, atol=2e-3)
