"""Sampling positions that a coarse box gives to a deformable convolution (paper B, eq. 7)."""

import torch
from torch import Tensor

from ...utils.validation import check_choice

OFFSET_MODES = ("box", "grid_plus_box")


def star_dcn_offset(distances: Tensor, mode: str = "box", gradient_scale: float = 0.1) -> Tensor:
    """Offsets of nine taps from the coarse box of each location (paper B, eq. 7).

    Args:
        distances: coarse box as left, top, right, bottom distances in strides (feature cells),
            ``(N, 4, H, W)``, or ``(N, 4, P)`` of all levels.
        mode: ``'box'`` puts the taps on the box's corners, edge midpoints and centre, as VFNet's
            star-shaped sampling does; ``'grid_plus_box'`` adds the same points to the regular grid
            (``d* + delta d`` read literally).
        gradient_scale: factor on the gradient that reaches the coarse box through the offsets.

    Returns:
        ``(N, 18, H, W)`` or ``(N, 18, P)`` in cells, ``[y0, x0, y1, x1, ...]``, relative to the
        regular 3x3 grid.
    """
    check_choice("offset mode", mode, OFFSET_MODES)
    distances = scale_gradient(distances, gradient_scale)
    near, far = distances.split(2, dim=1)  # (left, top) and (right, bottom)
    # Less the regular grid, as plain numbers: a tensor of them would wait for the device.
    cell = 1 if mode == "box" else 0
    steps = torch.stack([cell - near, (far - near) / 2, far - cell], dim=1)  # (N, 3, x y, ...)
    columns, rows = steps.unbind(dim=2)
    shape = (steps.shape[0], 3, 3, *steps.shape[3:])
    taps = torch.stack([rows[:, :, None].expand(shape), columns[:, None].expand(shape)], dim=3)
    return taps.flatten(1, 3)


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """The identity, whose gradient is multiplied by ``scale``."""
    if scale == 1 or not x.requires_grad:
        return x
    return _ScaledGradient.apply(x, scale)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.scale, None
