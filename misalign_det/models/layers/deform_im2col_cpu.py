"""Bilinear samples for a deformable convolution on the CPU, each a row of channels.

``grid_sample`` goes channel by channel and scatters its gradient number by number. With the
channels of a cell side by side in memory, a sample is a weighted sum of four rows, and the gradient
of a cell one of the rows that were sampled from it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def sample_taps(
    x: Tensor, offset: Tensor, mask: Tensor | None = None, locations: Tensor | None = None
) -> Tensor:
    """What the nine taps of a 3x3 convolution (stride 1, padding 1) read at each location.

    Args:
        x: ``(N, C, H, W)``.
        offset: of the taps from the regular grid, in feature cells, ``[y0, x0, y1, x1, ...]``, taps
            in row order, ``(N, 18, H, W)``.
        mask: factor on each tap, ``(N, 9, H, W)``.
        locations: places in the flattened ``N * H * W``, ``(n,)``; all by default.

    Returns:
        ``(n, 9, C)`` in the dtype of ``offset``; zero where a tap lies outside the map.
    """
    num, channels, height, width = x.shape
    shift = offset.permute(0, 2, 3, 1).reshape(-1, 9, 2).contiguous()
    factor = None if mask is None else mask.permute(0, 2, 3, 1).reshape(-1, 9, 1)
    if locations is None:
        locations = torch.arange(len(shift), device=x.device)
    else:
        shift, factor = shift[locations], None if factor is None else factor[locations]
    index, share = corners(shift, locations.int(), height, width)
    if factor is not None:
        share = share * factor
    # A border of zeros around each map, so that a tap outside needs no case of its own.
    table = F.pad(x.to(share.dtype).permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    samples = _weighted_rows(table.reshape(-1, channels), index.view(-1, 4), share.reshape(-1, 4))
    return samples.view(-1, 9, channels)


def corners(shift: Tensor, locations: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells around each tap in the bordered maps, and their bilinear shares.

    Args:
        shift: offsets of the locations' taps in cells, y before x, ``(n, 9, 2)``.
        locations: places in the flattened ``N * H * W``, ``(n,)`` int32.

    Returns:
        Places in the flattened ``N * (H + 2) * (W + 2)``, int32, and shares, ``(n, 9, 4)`` both.
    """
    row = locations.div(width, rounding_mode="floor")
    image = row.div(height, rounding_mode="floor")
    taps = torch.arange(9, device=shift.device)
    y = shift[..., 0] + ((row % height)[:, None] + (taps // 3 - 1))
    x = shift[..., 1] + ((locations % width)[:, None] + (taps % 3 - 1))
    # Beyond the border all is border. Unlike clamp, hardtanh has no gradient at its bounds either:
    # mmcv's op has none for a tap on the border, where RFAConv2d's outer taps start.
    y, x = F.hardtanh(y, -1.0, float(height)), F.hardtanh(x, -1.0, float(width))
    low_y, low_x = _cell_below(y, height), _cell_below(x, width)
    first = (image[:, None] * (height + 2) + low_y + 1) * (width + 2) + low_x + 1
    around = torch.stack([first, first + 1, first + width + 2, first + width + 3], dim=-1)
    down, right = y - low_y, x - low_x
    up, left = 1 - down, 1 - right
    share = torch.stack([up * left, up * right, down * left, down * right], dim=-1)
    return around, share


def _cell_below(place: Tensor, size: int) -> Tensor:
    """Last row or column up to a place, from -1 to ``size - 1``; NaN too has to be one. int32."""
    return place.detach().floor().int().clamp(-1, size - 1)


def _weighted_rows(table: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """``sum_j share_ij * table[index_ij]``, ``(m, C)`` from ``(M, C)`` and twice ``(m, 4)``."""
    # With embedding_bag's own gradient into its table the layer takes half as long again.
    rows = F.embedding_bag(index, table.detach(), mode="sum", per_sample_weights=share)
    return _TableGradient.apply(rows, table, index, share.detach())


class _TableGradient(torch.autograd.Function):
    """Hands :func:`_weighted_rows`' sums on; their gradient reaches the table too."""

    @staticmethod
    def forward(ctx, rows, table, index, share):
        ctx.save_for_backward(index, share)
        ctx.cells = len(table)
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        if not ctx.needs_input_grad[1]:
            return grad, None, None, None
        index, share = ctx.saved_tensors
        return grad, sum_by_cell(grad.contiguous(), index, share, ctx.cells), None, None


def sum_by_cell(rows: Tensor, index: Tensor, share: Tensor, cells: int) -> Tensor:
    """``sum share_ij * rows_i`` over all ``index_ij`` that are the cell, for each, ``(cells, C)``.

    In the same order each time, on CUDA too: sorted, not by atomic additions.

    Args:
        rows: ``(m, C)``.
        index, share: ``(m, 4)``, int32 and in the dtype of ``rows``.
    """
    sorted_cells, order = index.flatten().sort(stable=True)
    begins = torch.searchsorted(
        sorted_cells, torch.arange(cells, dtype=index.dtype, device=index.device), out_int32=True
    )
    order = order.int()
    return F.embedding_bag(
        order // 4, rows, begins, mode="sum", per_sample_weights=share.flatten()[order]
    )
