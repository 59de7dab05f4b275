"""A tower on all pyramid levels at once and level by level."""

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import nn

from misalign_det.models.layers import adapt_receptive_field, run_tower


def tower(order=("conv", "norm", "act"), num=2):
    """Two blocks, the first with an RFAConv2d whose offsets are not zero."""
    torch.manual_seed(0)
    blocks = [
        ConvModule(4, 4, 3, padding=1, norm_cfg=dict(type="GN", num_groups=2), order=order)
        for _ in range(num)
    ]
    adapt_receptive_field(blocks, "first", False)
    nn.init.normal_(blocks[0].conv.conv_offset.weight, std=0.3)
    return nn.Sequential(*blocks)


@pytest.mark.cuda
@pytest.mark.parametrize("order", [("conv", "norm", "act"), ("act", "conv", "norm")])
def test_all_levels_at_once_equal_level_by_level(order):
    blocks = tower(order)
    feats = [torch.randn(2, 4, *size) for size in ((6, 7), (3, 3))]
    expected = [blocks(feat) for feat in feats]
    assert all(torch.equal(a, b) for a, b in zip(run_tower(blocks, feats), expected, strict=True))
    found = run_tower(blocks.cuda(), [feat.cuda() for feat in feats])
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
def test_hooks_are_called_on_every_level():
    blocks = tower().cuda()
    feats = [torch.randn(1, 4, *size, device="cuda") for size in ((6, 7), (3, 3))]
    for module in (blocks[0], blocks[0].conv):
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            seen = []
            handle = register(lambda *args, seen=seen: seen.append(args[0]))
            run_tower(blocks, feats)
            handle.remove()
            assert seen == [module, module]
