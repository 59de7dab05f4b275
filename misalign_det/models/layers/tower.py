"""A head's tower of ``ConvModule`` blocks, run on all pyramid levels."""

from collections.abc import Iterable, Sequence

from mmcv.cnn import ConvModule
from torch import Tensor

from .deform_conv import takes_all_levels
from .rfa_conv import RFAConv2d


def run_tower(tower: Iterable[ConvModule], feats: Sequence[Tensor]) -> list[Tensor]:
    """Run a branch of a head on all pyramid levels.

    An :class:`RFAConv2d` runs on all levels at once where ``takes_all_levels`` is true; all other
    blocks run level by level.

    Args:
        tower: the ``ConvModule`` blocks of the branch, in order.
        feats: ``(N, C_in, H, W)`` per level.

    Returns:
        ``(N, C_out, H, W)`` per level.
    """
    for block in tower:
        conv = getattr(block, "conv", None)
        plain = getattr(block, "order", None) == ("conv", "norm", "act") and not (
            block._forward_hooks or block._forward_pre_hooks
        )
        if plain and isinstance(conv, RFAConv2d) and takes_all_levels(conv, feats[0]):
            feats = [_norm_and_activation(block, feat) for feat in conv.forward_levels(feats)]
        else:
            feats = [block(feat) for feat in feats]
    return list(feats)


def _norm_and_activation(block: ConvModule, x: Tensor) -> Tensor:
    x = block.norm(x) if block.with_norm else x
    return block.activate(x) if block.with_activation else x
