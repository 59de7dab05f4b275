"""Deformable convolution on CUDA: samples by a Triton kernel, then one matrix product.

The channels of a cell lie side by side, as in channels-last memory, and so do those of a sample:
``(locations, 9 * C_in)``. The product is that of a linear layer, its output channels-last too. The
samples of a whole batch would take gigabytes: a buffer of limited size is filled and multiplied
several times, and the backward pass samples again.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .matmul_precision import convolution_precision
from .row_samples import corners, sum_by_cell

MAX_BYTES = 2**29  # of the samples that are in memory at a time


def im2col_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, of tensors for which ``has_triton`` is true.

    Values and gradients are those of ``mmcv.ops.deform_conv2d`` (with a mask, of
    ``modulated_deform_conv2d``); an offset of NaN gives NaN. In PyTorch's deterministic mode the
    gradient of ``x`` is summed in sorted order, otherwise by atomic additions.

    Args:
        x: ``(N, C_in, H, W)``, read without a copy if it is channels-last and of ``dtype``.
        offset: ``(N, 18, H, W)`` in cells, ``[y0, x0, y1, x1, ...]``, float32 or float64: the dtype
            of positions and bilinear shares.
        weight: ``(C_out, C_in, 3, 3)``.
        mask: factor on each tap, ``(N, 9, H, W)``, in the dtype of ``offset``, or ``None``.
        dtype: of the samples and of the product.

    Returns:
        ``(N, C_out, H, W)`` in ``dtype``, channels last in memory.
    """
    return _DeformConv2d.apply(x, offset, weight, mask, dtype)


@torch.no_grad()
def im2col_deform_conv2d_at(
    x: Tensor, offset: Tensor, weight: Tensor, dtype: torch.dtype, locations: Tensor
) -> Tensor:
    """The same at some locations alone, ``(n, C_out)``, without a gradient.

    Args:
        x, offset, weight, dtype: see :func:`im2col_deform_conv2d`.
        locations: places in the flattened ``N * H * W``, int64 ``(n,)``.
    """
    features, kernel = _channels_last(x, dtype), _channels_last(weight, dtype).flatten(1)
    return _sample_and_multiply(features, offset, None, kernel, len(locations), locations)


class _DeformConv2d(Function):
    @staticmethod
    def forward(ctx, x, offset, weight, mask, dtype):
        features, kernel = _channels_last(x, dtype), _channels_last(weight, dtype).flatten(1)
        ctx.save_for_backward(features, offset, mask, kernel, weight)
        ctx.x_dtype = x.dtype
        num, height, width, _ = features.shape
        out = _sample_and_multiply(features, offset, mask, kernel, num * height * width)
        return _channels_first(out.view(num, height, width, len(kernel)))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from .deform_im2col_kernel import col2im, im2col

        features, offset, mask, kernel, weight = ctx.saved_tensors
        need_x, need_offset, need_weight, need_mask, _ = ctx.needs_input_grad
        need_place = need_offset or need_mask
        grad = _channels_last(grad, features.dtype).flatten(0, 2)
        places = features.shape[:3]
        grad_x = offset.new_zeros(features.shape) if need_x else None
        grad_offset = offset.new_empty(*places, 18) if need_place else None
        grad_mask = offset.new_empty(*places, 9) if need_place and mask is not None else None
        grad_kernel = None
        in_order = need_x and torch.are_deterministic_algorithms_enabled()
        with torch.autocast(grad.device.type, enabled=False), convolution_precision():
            for first, last, samples in _steps(features, len(grad)):
                part = grad[first:last]
                if need_weight:
                    im2col(features, offset, mask, samples, first)
                    product = part.t() @ samples
                    # Sums of steps in half precision would lose what later steps add.
                    grad_kernel = product if grad_kernel is None else grad_kernel.float() + product
                if not (need_x or need_place):
                    continue
                torch.mm(part, kernel, out=samples)
                col2im(
                    features, offset, mask, samples, first,
                    None if in_order else grad_x, grad_offset, grad_mask,
                )  # fmt: skip
                if in_order:
                    grad_x += _sum_in_order(features, offset, mask, samples, first)
        return (
            _channels_first(grad_x).to(ctx.x_dtype) if need_x else None,
            _channels_first(grad_offset) if need_offset else None,
            _weight_gradient(weight, grad_kernel) if need_weight else None,
            _channels_first(grad_mask) if need_mask else None,
            None,
        )


def _sample_and_multiply(
    features: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel: Tensor,
    num: int,
    locations: Tensor | None = None,
) -> Tensor:
    """The output at ``num`` locations, all of them or those given, ``(num, C_out)``."""
    from .deform_im2col_kernel import im2col

    out = features.new_empty(num, len(kernel))
    with convolution_precision():
        for first, last, samples in _steps(features, num):
            im2col(features, offset, mask, samples, first, locations)
            torch.mm(samples, kernel.t(), out=out[first:last])
    return out


def _steps(features: Tensor, num: int) -> Iterator[tuple[int, int, Tensor]]:
    """First location and the one after the last of each step, and a buffer for its samples."""
    width = 9 * features.shape[-1]
    size = max(1, min(num, MAX_BYTES // (width * features.element_size())))
    buffer = features.new_empty(size, width)
    for first in range(0, num, size):
        last = min(first + size, num)
        yield first, last, buffer[: last - first]


def _channels_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``(N, C, H, W)`` as contiguous ``(N, H, W, C)``: a view where it can be, or one copy."""
    x = x.permute(0, 2, 3, 1)
    if x.dtype == dtype and x.is_contiguous():
        return x
    return x.new_empty(x.shape, dtype=dtype).copy_(x)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _weight_gradient(weight: Tensor, grad_kernel: Tensor | None) -> Tensor:
    """In the memory format of ``weight``, from ``(C_out, 9 * C_in)``; ``None`` is zero."""
    if grad_kernel is None:
        return torch.zeros_like(weight)
    num, channels = weight.shape[:2]
    return torch.empty_like(weight).copy_(_channels_first(grad_kernel.view(num, 3, 3, channels)))


def _sum_in_order(
    features: Tensor, offset: Tensor, mask: Tensor | None, grad: Tensor, first: int
) -> Tensor:
    """What the gradient of samples from ``first`` on adds to that of the features."""
    num, height, width, channels = features.shape
    locations = torch.arange(first, first + len(grad), dtype=torch.int32, device=grad.device)
    shift = offset.permute(0, 2, 3, 1).reshape(-1, 9, 2)[first : first + len(grad)]
    index, share = corners(shift, locations, height, width)
    if mask is not None:
        share = share * mask.permute(0, 2, 3, 1).reshape(-1, 9, 1)[first : first + len(grad)]
    rows, share = grad.view(-1, channels), share.view(-1, 4).to(grad.dtype)
    cells = num * (height + 2) * (width + 2)
    bordered = sum_by_cell(rows, index.view(-1, 4), share, cells)
    return bordered.view(num, height + 2, width + 2, channels)[:, 1:-1, 1:-1]
