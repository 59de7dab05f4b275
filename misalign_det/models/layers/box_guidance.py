"""Sampling positions that a coarse box gives to a deformable convolution (paper B, eq. 7)."""

import torch
from torch import Tensor

from ..choices import check_choice

OFFSET_MODES = ("box", "grid_plus_box")


def box_guided_offsets(distances: Tensor, mode: str = "box", gradient_scale: float = 0.1) -> Tensor:
    """Offsets of nine taps from the coarse box of each location (paper B, eq. 7).

    Args:
        distances: coarse box as left, top, right, bottom distances in strides (feature cells),
            ``(N, 4, H, W)``.
        mode: ``'box'`` puts the taps on the box's corners, edge midpoints and centre, as VFNet's
            star-shaped sampling does; ``'grid_plus_box'`` adds the same points to the regular grid
            (``d* + delta d`` read literally).
        gradient_scale: factor on the gradient that reaches the coarse box through the offsets.

    Returns:
        ``(N, 18, H, W)`` in cells, ``[y0, x0, y1, x1, ...]``, relative to the regular 3x3 grid.
    """
    check_choice("offset mode", mode, OFFSET_MODES)
    distances = scale_gradient(distances, gradient_scale)
    left, top, right, bottom = distances.unbind(dim=1)
    # Less the regular grid, as plain numbers: a tensor of them would wait for the device.
    cell = 1 if mode == "box" else 0
    columns = (cell - left, (right - left) / 2, right - cell)
    rows = (cell - top, (bottom - top) / 2, bottom - cell)
    return torch.stack([point for row in rows for column in columns for point in (row, column)], 1)


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """The identity, whose gradient is multiplied by ``scale``."""
    if scale == 1:
        return x
    return x.detach() + scale * (x - x.detach())
