"""RFAConv2d: equal to a plain convolution at the start, to mmcv's modulated op after it."""

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.ops import modulated_deform_conv2d
from torch import nn

from misalign_det.models.layers import RFAConv2d, adapt_receptive_field, sampled_deform_conv2d


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
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
