"""Star-shaped sampling offsets from a coarse box (Triple-head Network, eq. 7)."""

import torch
from torch import Tensor

from ...utils.validation import check_choice

OFFSET_MODES = ("box", "grid_plus_box")


def star_dcn_offset(distances: Tensor, mode: str = "box", gradient_mul: float = 0.1) -> Tensor:
    """Offsets of the nine taps from the coarse box of each location (Triple-head Network, eq. 7).

    Named after ``star_dcn_offset`` of mmdet's ``VFNetHead``, which samples at the same points.

    Args:
        distances: left, top, right and bottom distances of the coarse box in strides (feature
            cells), ``(N, 4, H, W)``, or ``(N, 4, P)`` of all levels.
        mode: ``'box'``: taps at the corners, edge midpoints and centre of the box;
            ``'grid_plus_box'``: the same points added to the regular grid (``d* + delta d`` read
            literally).
        gradient_mul: factor on the gradient that reaches the coarse box through the offsets.

    Returns:
        ``(N, 18, H, W)`` or ``(N, 18, P)`` in cells, ``[y0, x0, y1, x1, ...]``, relative to the
        regular 3x3 grid.

    Raises:
        ValueError: unknown mode.

    Example:
        A box from 2 cells left and above to 2 cells right and below: the upper left tap moves from
        (-1, -1) to (-2, -2).

        >>> import torch
        >>> star_dcn_offset(torch.full((1, 4, 1, 1), 2.0))[0, :2, 0, 0]
        tensor([-1., -1.])
    """
    check_choice("offset mode", mode, OFFSET_MODES)
    distances = scale_gradient(distances, gradient_mul)
    near, far = distances.split(2, dim=1)  # (left, top) and (right, bottom)
    # The regular grid is subtracted as Python numbers: a tensor of them would be copied from the
    # host, which is a host-device synchronisation.
    cell = 1 if mode == "box" else 0
    steps = torch.stack([cell - near, (far - near) / 2, far - cell], dim=1)  # (N, 3, x y, ...)
    columns, rows = steps.unbind(dim=2)
    shape = (steps.shape[0], 3, 3, *steps.shape[3:])
    taps = torch.stack([rows[:, :, None].expand(shape), columns[:, None].expand(shape)], dim=3)
    return taps.flatten(1, 3)


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """The identity, with its gradient multiplied by ``scale``."""
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
