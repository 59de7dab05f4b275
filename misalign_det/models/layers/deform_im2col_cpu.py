"""Im2col of the deformable convolution on the CPU: bilinear samples as rows of channels.

``grid_sample`` samples channel by channel and scatters its gradient element by element. With the
channels of a cell contiguous in memory, a sample is a weighted sum of four rows, and the gradient
of a cell is a weighted sum of the gradients of the samples that read it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def _weights_need_a_table_with_gradient() -> bool:
    """Whether this torch has a gradient of the weights only together with one of the table: 2.1."""
    with torch.inference_mode(False), torch.enable_grad():
        table = torch.ones(1, 1)
        weights = torch.ones(1, 1, requires_grad=True)
        try:
            F.embedding_bag(torch.zeros(1, 1).int(), table, mode="sum", per_sample_weights=weights)
        except RuntimeError:
            return True
    return False


# Asked at import, since torch.compile would trace the question.
WEIGHTS_NEED_A_TABLE_WITH_GRADIENT = _weights_need_a_table_with_gradient()


def sample_taps(
    x: Tensor, offset: Tensor, mask: Tensor | None = None, locations: Tensor | None = None
) -> Tensor:
    """Samples at the nine taps of a 3x3 convolution (stride 1, padding 1) of each location.

    Args:
        x: ``(N, C, H, W)``.
        offset: from the regular grid, in feature cells, ``(N, 18, H, W)``,
            ``[y0, x0, y1, x1, ...]``, taps in row-major order.
        mask: factor on each tap, ``(N, 9, H, W)``.
        locations: indices into the flattened ``N * H * W``, ``(n,)``; all by default.

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
    # With a border of zeros around each map, taps outside need no special case.
    table = F.pad(x.to(share.dtype).permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    samples = _weighted_rows(table.reshape(-1, channels), index.view(-1, 4), share.reshape(-1, 4))
    return samples.view(-1, 9, channels)


def corners(shift: Tensor, locations: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells around each tap in maps with a border of one cell, and their weights.

    Args:
        shift: offsets of the locations' taps in cells, y before x, ``(n, 9, 2)``.
        locations: indices into the flattened ``N * H * W``, ``(n,)`` in int32.
        height, width: H and W.

    Returns:
        Indices into the flattened ``N * (H + 2) * (W + 2)`` in int32, and bilinear weights, both
        ``(n, 9, 4)``.
    """
    row = locations.div(width, rounding_mode="floor")
    image = row.div(height, rounding_mode="floor")
    taps = torch.arange(9, device=shift.device)
    y = shift[..., 0] + ((row % height)[:, None] + (taps // 3 - 1))
    x = shift[..., 1] + ((locations % width)[:, None] + (taps % 3 - 1))
    # Taps beyond the border are moved onto it. Unlike clamp, hardtanh has zero gradient at its
    # bounds, too, as mmcv's op for a tap on the border, where the outer taps of RFAConv2d start.
    y, x = F.hardtanh(y, -1.0, float(height)), F.hardtanh(x, -1.0, float(width))
    low_y, low_x = _cell_below(y, height), _cell_below(x, width)
    first = (image[:, None] * (height + 2) + low_y + 1) * (width + 2) + low_x + 1
    around = torch.stack([first, first + 1, first + width + 2, first + width + 3], dim=-1)
    down, right = y - low_y, x - low_x
    up, left = 1 - down, 1 - right
    share = torch.stack([up * left, up * right, down * left, down * right], dim=-1)
    return around, share


def _cell_below(position: Tensor, size: int) -> Tensor:
    """Row or column at or before a position, from -1 to ``size - 1`` (NaN too), in int32."""
    return position.detach().floor().int().clamp(-1, size - 1)


def _weighted_rows(table: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """``sum_j share_ij * table[index_ij]``, ``(m, C)``.

    Args:
        table: ``(M, C)``.
        index, share: ``(m, 4)``.
    """
    # With embedding_bag's own gradient of its table the layer takes 1.5 times as long.
    detached = table.detach()
    if WEIGHTS_NEED_A_TABLE_WITH_GRADIENT:
        detached.requires_grad_(share.requires_grad)
    rows = F.embedding_bag(index, detached, mode="sum", per_sample_weights=share)
    return _TableGradient.apply(rows, table, index, share.detach())


class _TableGradient(torch.autograd.Function):
    """The identity on the sums of :func:`_weighted_rows`, with a gradient of the table."""

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
    """``sum share_ij * rows_i`` over all ``(i, j)`` with ``index_ij == cell``, for each cell.

    Deterministic, on CUDA too: by sorting, without atomic additions.

    Args:
        rows: ``(m, C)``.
        index: ``(m, 4)`` in int32.
        share: ``(m, 4)`` in the dtype of ``rows``.
        cells: number of cells.

    Returns:
        ``(cells, C)``.
    """
    sorted_cells, order = index.flatten().sort(stable=True)
    begins = torch.searchsorted(
        sorted_cells, torch.arange(cells, dtype=index.dtype, device=index.device), out_int32=True
    )
    order = order.int()
    return F.embedding_bag(
        order // 4, rows, begins, mode="sum", per_sample_weights=share.flatten()[order]
    )
