"""One deformable convolution in four forms: Triton, mmcv's op, gathered rows, ``grid_sample``.

Their values are equal. So are the gradients of the first three, everywhere: where a tap lies
exactly on a cell, the derivative by its offset is the one towards larger offsets; where it lies on
the border, a whole cell outside the map, it is zero. ``grid_sample`` has other one-sided
derivatives at such places.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2d
from torch import Tensor, nn

from ...utils.compiler import exporting, without_compiler
from ...utils.triton_support import has_triton
from .deform_im2col_cpu import sample_taps
from .deform_im2col_cuda import as_maps, im2col_deform_conv2d, im2col_deform_conv2d_at
from .matmul_precision import convolution_dtype
from .mmcv_deform_conv import MAX_COLUMNS, mmcv_deform_conv2d


def sampled_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, by ``grid_sample`` and one matrix product.

    The values of ``mmcv.ops.deform_conv2d`` (with a mask, of ``modulated_deform_conv2d``), made of
    operators that export to ONNX. So are the gradients, but for that of an offset that puts a tap
    exactly on a row or a column of cells, or on the border around the map. There the value has a
    kink, mmcv takes one side's derivative or zero, and ``grid_sample`` another side's. The form is
    for export, where gradients do not matter.

    Positions and samples are in the offsets' precision, the product in that of ``x``.

    Args:
        x: ``(N, C_in, H, W)``.
        offset: ``(N, 18, H, W)`` in feature cells, ``[y0, x0, y1, x1, ...]``, taps in row order.
        weight: ``(C_out, C_in, 3, 3)``.
        mask: factor on each tap, ``(N, 9, H, W)`` (deformable v2).

    Returns:
        ``(N, C_out, H, W)`` in the dtype of ``x``.
    """
    num, channels, height, width = x.shape
    taps = torch.arange(9, device=x.device)
    cell_y = torch.arange(height, device=x.device)[:, None] + (taps // 3 - 1)[:, None, None]
    cell_x = torch.arange(width, device=x.device) + (taps % 3 - 1)[:, None, None]
    offset = offset.view(num, 9, 2, height, width)
    y = (2 * (offset[:, :, 0] + cell_y) + 1) / height - 1
    x_ = (2 * (offset[:, :, 1] + cell_x) + 1) / width - 1
    grid = torch.stack([x_, y], dim=-1).view(num, 9 * height, width, 2)
    samples = F.grid_sample(
        x.to(grid.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    if mask is not None:
        samples = samples * mask.reshape(num, 1, 9 * height, width)
    kernels = weight.reshape(1, len(weight), channels * 9).to(x.dtype).expand(num, -1, -1)
    samples = samples.reshape(num, channels * 9, height * width).to(x.dtype)
    return torch.bmm(kernels, samples).view(num, len(weight), height, width)


def gathered_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    locations: Tensor | None = None,
) -> Tensor:
    """The same on the CPU: samples are rows of channels, in half the time.

    Values and all gradients are those of ``mmcv.ops.deform_conv2d`` (with a mask, of
    ``modulated_deform_conv2d``): an offset that puts a tap exactly on a cell has the derivative
    towards larger offsets, one that puts it on the border, a whole cell outside the map or further,
    none. Samples and product are in the offsets' precision. On CUDA too, sums are made in the same
    order each time.

    Args:
        x, offset, weight, mask: see :func:`sampled_deform_conv2d`.
        locations: places in the flattened ``N * H * W``, ``(n,)``; all by default.

    Returns:
        ``(N, C_out, H, W)`` in the dtype of ``x``, channels last in memory; of some locations
        ``(n, C_out)``.
    """
    samples = sample_taps(x, offset, mask, locations).flatten(1)  # (n, 9 * C_in)
    kernel = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).to(samples.dtype)
    out = (samples @ kernel).to(x.dtype)
    if locations is not None:
        return out
    return out.view(len(x), *x.shape[2:], len(weight)).permute(0, 3, 1, 2)


def auto_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The form for the device; to export, the sampled one.

    Positions and bilinear shares are in float32 (float64 for float64 input) whatever autocast says:
    in half precision they are off by whole cells on large maps. The product is in float32 on the
    CPU. On CUDA it is in the dtype of a convolution at this place, autocast's or that of ``x``,
    with TF32 where convolutions use it.

    Args:
        x, offset, weight, mask: see :func:`sampled_deform_conv2d`.
        bias: ``(C_out,)``.

    Returns:
        ``(N, C_out, H, W)`` in the dtype of ``x``; on CUDA in that of a convolution of ``x``.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    dtype = convolution_dtype(x) if x.is_cuda else x.dtype
    with torch.autocast(x.device.type, enabled=False):
        offset = offset.to(wide)
        mask = None if mask is None else mask.to(wide)
        if x.is_cuda and not exporting():
            return _deform_conv2d_on_cuda(x, offset, weight, mask, bias, dtype)
        form = sampled_deform_conv2d if exporting() else gathered_deform_conv2d
        return _plus(form(x, offset, weight, mask), bias)


@without_compiler
def _deform_conv2d_on_cuda(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    if has_triton(x, dtype):
        masks = [] if mask is None else [mask]
        rows = im2col_deform_conv2d([x], [offset], weight, masks, bias, dtype)
        return as_maps(rows, [x])[0]
    # mmcv's op adds gradients in an order that changes, takes no empty batch, and counts an image's
    # samples in an int.
    in_order = torch.are_deterministic_algorithms_enabled()
    if in_order or len(x) == 0 or 9 * x.shape[1:].numel() > MAX_COLUMNS:
        out = gathered_deform_conv2d(x, offset, weight, mask)
    else:
        out = mmcv_deform_conv2d(x.to(offset.dtype), offset, weight.to(offset.dtype), mask)
    return _plus(out.to(dtype), bias)


def _plus(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out + bias.to(out.dtype)[:, None, None]


@without_compiler
def _deform_conv2d_at_on_cuda(
    x: Tensor, offset: Tensor, weight: Tensor, locations: Tensor, dtype: torch.dtype
) -> Tensor:
    if torch.is_grad_enabled() or not has_triton(x, dtype):
        return gathered_deform_conv2d(x, offset, weight, locations=locations)
    return im2col_deform_conv2d_at(x, offset, weight, dtype, locations).to(x.dtype)


class AutoDeformConv2d(DeformConv2d):
    """3x3 deformable convolution by :func:`auto_deform_conv2d`, with offsets from outside.

    No bias, no groups; parameters as in ``mmcv.ops.DeformConv2d``, so checkpoints are
    interchangeable.

    Shapes: input ``(N, C_in, H, W)``, offset ``(N, 18, H, W)`` in cells, output
    ``(N, C_out, H, W)`` in the input's dtype, on CUDA under autocast in autocast's.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return auto_deform_conv2d(x, offset, self.weight)

    def at(self, x: Tensor, offset: Tensor, locations: Tensor) -> Tensor:
        """The output at some locations alone, ``(n, C_out)`` in the input's dtype.

        Args:
            x, offset: as in :meth:`forward`.
            locations: places in the flattened ``N * H * W``, ``(n,)``.
        """
        offset = offset.to(torch.promote_types(x.dtype, torch.float32))
        out_dtype = convolution_dtype(x) if x.is_cuda else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            if not x.is_cuda:
                return gathered_deform_conv2d(x, offset, self.weight, locations=locations)
            return _deform_conv2d_at_on_cuda(x, offset, self.weight, locations, out_dtype)


def takes_all_levels(layer: nn.Module, x: Tensor) -> bool:
    """Whether :func:`deform_levels` may stand for the layer's calls level by level.

    Args:
        layer: has no hooks, which would miss the calls.
        x: any of its inputs.
    """
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    if hooked or not x.is_cuda or exporting() or torch.compiler.is_compiling():
        return False
    return has_triton(x, convolution_dtype(x))


def deform_levels(
    xs: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    masks: Sequence[Tensor] = (),
    bias: Tensor | None = None,
    activation: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """``activation(auto_deform_conv2d(...))`` of each level of a pyramid, by one product on CUDA.

    Call it where :func:`takes_all_levels` is true.

    Args:
        xs, offsets, masks: per level; see :func:`auto_deform_conv2d`.
        weight, bias: as there.
        activation: a function of each number by itself.
    """
    dtype = convolution_dtype(xs[0])
    wide = torch.promote_types(xs[0].dtype, torch.float32)
    with torch.autocast(xs[0].device.type, enabled=False):
        offsets, masks = ([part.to(wide) for part in parts] for parts in (offsets, masks))
        rows = im2col_deform_conv2d(xs, offsets, weight, masks, bias, dtype)
        return as_maps(rows if activation is None else activation(rows), xs)
