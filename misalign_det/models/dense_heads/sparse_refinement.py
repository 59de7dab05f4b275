"""Boxes refined only where mmdet's ``predict_by_feat`` can make a detection of them.

mmdet selects what reaches NMS by class probability alone (``score_thr`` and ``nms_pre``), so that
at inference the regression branch is needed around few locations. At all others TripleHead's coarse
box stands.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ..layers import AutoDeformConv2d
from .float32_logits import at_least_float32

ROUNDING = 1e-5  # relative, of probabilities in float32


def detectable(probabilities: Tensor, test_cfg: Mapping) -> Tensor:
    """Locations of one level that mmdet can make a detection of.

    What it keeps before NMS, the ``nms_pre`` best (location, class) pairs above ``score_thr``, is
    among them.

    Args:
        probabilities: of each class, ``(N, C, H, W)``.
        test_cfg: ``score_thr`` and ``nms_pre``; absent keys exclude nothing.

    Returns:
        ``(N, 1, H, W)`` bool.
    """
    best = probabilities.amax(dim=1, keepdim=True)
    # What mmdet compares may differ by rounding: of a geometric mean it sees the root.
    where = best > (test_cfg.get("score_thr") or 0) * (1 - ROUNDING)
    rows, limit = best.flatten(1), test_cfg.get("nms_pre") or -1
    if 0 < limit < rows.shape[1]:
        least = rows.topk(limit, dim=1).values[:, -1, None, None, None]
        where &= best >= least * (1 - ROUNDING)
    return where


def detectable_levels(cls_scores: Sequence[Tensor], test_cfg: Mapping | None) -> list[Tensor]:
    """:func:`detectable` of each level's class logits, ``(N, C, H, W)`` in any float type."""
    return [detectable(at_least_float32(level).sigmoid(), test_cfg or {}) for level in cls_scores]


def seen_by_output(where: Tensor) -> Tensor:
    """Locations in the 3x3 neighbourhood of any that is True, ``(N, 1, H, W)`` bool both."""
    return F.max_pool2d(where.float(), 3, stride=1, padding=1) > 0


def guided_around(where: Tensor, layer: AutoDeformConv2d, x: Tensor, offset: Tensor) -> Tensor:
    """A guided layer, computed only where a 3x3 convolution at the given locations reads it.

    Args:
        where: locations whose 3x3 output is wanted, ``(N, 1, H, W)`` bool.
        layer: the deformable convolution.
        x: its input, ``(N, D, H, W)``.
        offset: its offsets, ``(N, 18, H, W)``.

    Returns:
        ``(N, D', H, W)``, zero at locations that were left out.
    """
    seen = seen_by_output(where)
    (locations,) = seen.flatten().nonzero(as_tuple=True)
    if len(locations) > seen.numel() / 2:  # computing all of them is cheaper then
        return layer(x, offset)
    guided = x.new_zeros(seen.numel(), layer.out_channels)
    guided[locations] = layer.at(x, offset, locations)
    return guided.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
