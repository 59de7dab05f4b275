"""Deformable convolution on CUDA: im2col by a Triton kernel, then one matrix product.

Dai et al. 2017 (`Deformable Convolutional Networks`), eq. 2 to 4; with masks Zhu et al. 2019
(`Deformable ConvNets v2`), eq. 1. Positions are in cells of the feature map.

Features and samples are channels-last; samples are ``(locations, 9 * C_in)``. The product is that
of a linear layer, and its output is channels-last, too. The samples of a whole batch would take
gigabytes, so a buffer of limited size is filled and multiplied several times, and the backward pass
samples again. The levels of a pyramid share buffer and product: their locations are numbered by
level, image, row and column.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .deform_im2col_cpu import corners, sum_by_cell
from .matmul_precision import convolution_precision

Level = tuple[Tensor, Tensor, Tensor | None]  # features (N, H, W, C), offsets, mask
MAX_BYTES = 2**29  # size of the buffer of samples


def im2col_deform_conv2d(
    xs: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    masks: Sequence[Tensor],
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, of tensors for which ``has_triton`` is true.

    Values and gradients are those of ``mmcv.ops.deform_conv2d`` (with masks, of
    ``modulated_deform_conv2d``), except that an offset of NaN gives NaN. In PyTorch's deterministic
    mode the gradient of the features is summed in sorted order, otherwise by atomic additions.

    Args:
        xs: ``(N, C_in, H, W)`` per level, read without a copy if channels-last and of ``dtype``.
        offsets: ``(N, 18, H, W)`` per level in cells, ``[y0, x0, y1, x1, ...]``, in float32 or
            float64, which is the dtype of positions and bilinear weights.
        weight: ``(C_out, C_in, 3, 3)``.
        masks: factors on the taps, ``(N, 9, H, W)`` per level in the dtype of the offsets; empty
            without modulation.
        bias: ``(C_out,)``.
        dtype: of the samples and of the product.

    Returns:
        ``(n, C_out)`` in ``dtype``, one row per location; :func:`as_maps` gives the maps.
    """
    return _DeformConv2d.apply(weight, bias, dtype, len(xs), *xs, *offsets, *masks)


def as_maps(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """One row per location as maps ``(N, C, H, W)`` per level, in channels-last memory.

    Args:
        rows: ``(n, C)``.
        like: maps of the same sizes, ``(N, ..., H, W)`` per level.
    """
    sizes = [(x.shape[0], *x.shape[2:]) for x in like]
    counts, channels = [num * height * width for num, height, width in sizes], rows.shape[1]
    parts = rows.split(counts) if len(counts) > 1 else [rows]  # split's gradient is a copy
    return [part.view(*size, channels).permute(0, 3, 1, 2) for part, size in zip(parts, sizes)]


@torch.no_grad()
def im2col_deform_conv2d_at(
    x: Tensor, offset: Tensor, weight: Tensor, dtype: torch.dtype, locations: Tensor
) -> Tensor:
    """The deformable convolution at some locations of one level, without a gradient.

    Args:
        x, offset, weight, dtype: see :func:`im2col_deform_conv2d`; of one level.
        locations: indices into the flattened ``N * H * W``, ``(n,)`` in int64.

    Returns:
        ``(n, C_out)`` in ``dtype``.
    """
    from .deform_im2col_triton import im2col

    features, kernel = _channels_last(x, dtype), _channels_last(weight, dtype).flatten(1)
    out = features.new_empty(len(locations), len(kernel))
    with convolution_precision():
        for first, last, samples in _steps(features, len(out)):
            im2col(features, offset, None, samples, first, locations)
            torch.mm(samples, kernel.t(), out=out[first:last])
    return out


class _DeformConv2d(Function):
    @staticmethod
    def forward(ctx, weight, bias, dtype, num, *tensors):
        xs, offsets, masks = tensors[:num], tensors[num : 2 * num], tensors[2 * num :]
        features = [_channels_last(x, dtype) for x in xs]
        kernel = _channels_last(weight, dtype).flatten(1)
        ctx.save_for_backward(weight, kernel, *features, *offsets, *masks)
        ctx.num, ctx.x_dtype = num, xs[0].dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        bias = None if bias is None else bias.to(dtype)
        levels = list(zip(features, offsets, masks or [None] * num))
        out = kernel.new_empty(sum(_counts(features)), len(kernel))
        with convolution_precision():
            for first, last, samples in _steps(features[0], len(out)):
                _sample(levels, samples, first)
                if bias is None:
                    torch.mm(samples, kernel.t(), out=out[first:last])
                else:
                    torch.addmm(bias, samples, kernel.t(), out=out[first:last])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from .deform_im2col_triton import col2im

        num, (weight, kernel, *tensors) = ctx.num, ctx.saved_tensors
        features, offsets, masks = tensors[:num], tensors[num : 2 * num], tensors[2 * num :]
        levels = list(zip(features, offsets, masks or [None] * num))
        need_weight, need_bias, _, _, *needed = ctx.needs_input_grad
        need_x, need_offset = any(needed[:num]), any(needed[num:])
        deterministic = need_x and torch.are_deterministic_algorithms_enabled()
        grad = grad.to(kernel.dtype).contiguous()
        rows, wide = len(grad), offsets[0]
        grad_x = wide.new_zeros(rows, features[0].shape[-1]) if need_x else None
        grad_offset = wide.new_empty(rows, 18) if need_offset else None
        grad_mask = wide.new_empty(rows, 9) if need_offset and masks else None
        parts_of = [_split(part, features) for part in (grad_x, grad_offset, grad_mask)]
        grad_kernel = None
        with torch.autocast(grad.device.type, enabled=False), convolution_precision():
            for first, last, samples in _steps(features[0], rows):
                if need_weight:
                    _sample(levels, samples, first)
                    product = grad[first:last].t() @ samples
                    # In half precision the sum over the steps would lose digits.
                    grad_kernel = product if grad_kernel is None else grad_kernel.float() + product
                if not (need_x or need_offset):
                    continue
                torch.mm(grad[first:last], kernel, out=samples)
                for level, start, part in _parts(features, samples, first):
                    to_x, to_offset, to_mask = (parts[level] for parts in parts_of)
                    to_x, sums = (None, to_x) if deterministic else (to_x, None)
                    col2im(*levels[level], part, start, to_x, to_offset, to_mask)
                    if deterministic:
                        sums += _sum_in_order(*levels[level], part, start)
        maps = [None] * len(tensors)
        if need_x:
            maps[:num] = as_maps(grad_x.to(ctx.x_dtype), offsets)
        if need_offset:
            maps[num : 2 * num] = as_maps(grad_offset, offsets)
            maps[2 * num :] = as_maps(grad_mask, offsets) if masks else []
        maps = [part if need else None for part, need in zip(maps, needed)]
        grad_weight = _weight_gradient(weight, grad_kernel) if need_weight else None
        grad_bias = grad.sum(0, dtype=ctx.bias_dtype) if need_bias else None
        return grad_weight, grad_bias, None, None, *maps


def _sample(levels: list[Level], samples: Tensor, first: int) -> None:
    """Fill ``samples`` with the samples of consecutive locations.

    Args:
        levels: features ``(N, H, W, C)``, offsets and mask (or ``None``) per level.
        samples: written, ``(n, 9 * C)``.
        first: number of the first location.
    """
    from .deform_im2col_triton import im2col

    for level, start, part in _parts([features for features, *_ in levels], samples, first):
        im2col(*levels[level], part, start)


def _parts(
    features: Sequence[Tensor], samples: Tensor, first: int
) -> Iterator[tuple[int, int, Tensor]]:
    """The part of ``samples`` that belongs to each level.

    Yields:
        Number of the level, number of the first location within it, and its samples.
    """
    begin, last = 0, first + len(samples)
    for level, count in enumerate(_counts(features)):
        low, high = max(first, begin), min(last, begin + count)
        if low < high:
            yield level, low - begin, samples[low - first : high - first]
        begin += count


def _counts(features: Sequence[Tensor]) -> list[int]:
    """Number of locations per level."""
    return [num * height * width for num, height, width, _ in (x.shape for x in features)]


def _split(rows: Tensor | None, features: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """One row per location, or none, per level."""
    return [None] * len(features) if rows is None else rows.split(_counts(features))


def _steps(features: Tensor, num: int) -> Iterator[tuple[int, int, Tensor]]:
    """First location of each step, the one after its last, and the buffer for its samples."""
    width = 9 * features.shape[-1]
    size = max(1, min(num, MAX_BYTES // (width * features.element_size())))
    buffer = features.new_empty(size, width)
    for first in range(0, num, size):
        last = min(first + size, num)
        yield first, last, buffer[: last - first]


def _channels_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``(N, C, H, W)`` as contiguous ``(N, H, W, C)``: a view where possible, else one copy."""
    x = x.permute(0, 2, 3, 1)
    if x.dtype == dtype and x.is_contiguous():
        return x
    return x.new_empty(x.shape, dtype=dtype).copy_(x)


def _weight_gradient(weight: Tensor, grad_kernel: Tensor | None) -> Tensor:
    """The gradient ``(C_out, 9 * C_in)`` in the shape and memory format of ``weight``.

    ``None``, where there were no locations, is zero.
    """
    if grad_kernel is None:
        return torch.zeros_like(weight)
    num, channels = weight.shape[:2]
    return torch.empty_like(weight).copy_(grad_kernel.view(num, 3, 3, channels).permute(0, 3, 1, 2))


def _sum_in_order(
    features: Tensor, offset: Tensor, mask: Tensor | None, grad: Tensor, first: int
) -> Tensor:
    """Gradient of the features from that of some samples, summed in sorted order.

    Args:
        features, offset, mask: of one level, see :func:`_sample`.
        grad: of the samples of consecutive locations, ``(n, 9 * C)``.
        first: number of the first location.

    Returns:
        One row per cell, ``(N * H * W, C)``.
    """
    num, height, width, channels = features.shape
    locations = torch.arange(first, first + len(grad), dtype=torch.int32, device=grad.device)
    shift = offset.permute(0, 2, 3, 1).reshape(-1, 9, 2)[first : first + len(grad)]
    index, share = corners(shift, locations, height, width)
    if mask is not None:
        share = share * mask.permute(0, 2, 3, 1).reshape(-1, 9, 1)[first : first + len(grad)]
    rows, share = grad.view(-1, channels), share.view(-1, 4).to(grad.dtype)
    cells = num * (height + 2) * (width + 2)
    bordered = sum_by_cell(rows, index.view(-1, 4), share, cells)
    return bordered.view(num, height + 2, width + 2, channels)[:, 1:-1, 1:-1].flatten(0, 2)
