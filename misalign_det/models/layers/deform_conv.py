"""3x3 deformable convolution with one interface and four implementations.

Triton kernels (CUDA), mmcv's op (CUDA without Triton), gathered rows of channels (CPU) and
``grid_sample`` (export). All compute the same values and the same gradients by features,
weights and masks, up to rounding.

The gradient by the offsets is that of mmcv's op in the first three. The value has a kink where a
tap lies exactly on a row or column of cells; the derivative there is the right-hand one, towards
larger offsets. Where a tap lies on the border, exactly one cell outside the map, it is zero.
``grid_sample`` has other one-sided derivatives at these positions, so its gradient by the offsets
differs from mmcv's there, and only there.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2d
from torch import Tensor, nn

from ...utils.compiler import compiling, exporting, without_compiler
from ...utils.triton_support import has_triton
from .deform_im2col_cpu import sample_taps
from .deform_im2col_cuda import as_maps, im2col_deform_conv2d, im2col_deform_conv2d_at
from .matmul_precision import convolution_dtype
from .mmcv_deform_conv import MAX_COLUMNS, mmcv_deform_conv2d


def sampled_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, by ``grid_sample`` and one matrix product.

    For export: its operators exist in ONNX. The values are those of ``mmcv.ops.deform_conv2d``
    (with a mask, of ``modulated_deform_conv2d``). So are the gradients, except that of an offset
    whose tap lies exactly on a row or column of cells or on the border; see the module.

    Positions and samples are in the dtype of the offsets, the product in that of ``x``.

    Args:
        x: ``(N, C_in, H, W)``.
        offset: from the regular grid, in feature cells, ``(N, 18, H, W)``,
            ``[y0, x0, y1, x1, ...]``, taps in row-major order.
        weight: ``(C_out, C_in, 3, 3)``.
        mask: factor on each tap, ``(N, 9, H, W)`` (Deformable ConvNets v2).

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
    """3x3 deformable convolution, stride 1, padding 1, whose samples are rows of channels.

    For the CPU, in half the time of :func:`sampled_deform_conv2d`; it runs on CUDA too. Values and
    all gradients are those of ``mmcv.ops.deform_conv2d`` (with a mask, of
    ``modulated_deform_conv2d``). Samples and product are in the dtype of the offsets. Sums are
    deterministic, on CUDA too.

    Args:
        x, offset, weight, mask: see :func:`sampled_deform_conv2d`.
        locations: indices into the flattened ``N * H * W``, ``(n,)``; all by default.

    Returns:
        ``(N, C_out, H, W)`` in the dtype of ``x``, in channels-last memory; with ``locations``
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
    """3x3 deformable convolution by the implementation for the device, or for export.

    Positions and bilinear weights are in float32 (float64 for float64 input) under autocast, too:
    in half precision they are off by whole cells on large maps. The product is in float32 on the
    CPU. On CUDA it is in the dtype that a convolution of ``x`` would have, autocast's or that of
    ``x``, and in TF32 where torch's convolutions use it.

    Args:
        x, offset, weight, mask: see :func:`sampled_deform_conv2d`.
        bias: ``(C_out,)``.

    Returns:
        ``(N, C_out, H, W)`` in the dtype of ``x``; on CUDA in that of the product.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    dtype = convolution_dtype(x) if x.is_cuda else x.dtype
    with torch.autocast(x.device.type, enabled=False):
        offset = offset.to(wide)
        mask = None if mask is None else mask.to(wide)
        if x.is_cuda and not exporting():
            return _deform_conv2d_on_cuda(x, offset, weight, mask, bias, dtype)
        implementation = sampled_deform_conv2d if exporting() else gathered_deform_conv2d
        return _add_bias(implementation(x, offset, weight, mask), bias)


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
    # mmcv's op is not deterministic, refuses an empty batch, and counts the samples of an image in
    # 32 bits.
    deterministic = torch.are_deterministic_algorithms_enabled()
    if deterministic or len(x) == 0 or 9 * x.shape[1:].numel() > MAX_COLUMNS:
        out = gathered_deform_conv2d(x, offset, weight, mask)
    else:
        out = mmcv_deform_conv2d(x.to(offset.dtype), offset, weight.to(offset.dtype), mask)
    return _add_bias(out.to(dtype), bias)


def _add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    return out if bias is None else out + bias.to(out.dtype)[:, None, None]


@without_compiler
def _deform_conv2d_at_on_cuda(
    x: Tensor, offset: Tensor, weight: Tensor, locations: Tensor, dtype: torch.dtype
) -> Tensor:
    if torch.is_grad_enabled() or not has_triton(x, dtype):
        return gathered_deform_conv2d(x, offset, weight, locations=locations)
    return im2col_deform_conv2d_at(x, offset, weight, dtype, locations).to(x.dtype)


class AutoDeformConv2d(DeformConv2d):
    """3x3 deformable convolution by :func:`auto_deform_conv2d`, whose offsets are an input.

    Without bias and groups. Parameters are those of ``mmcv.ops.DeformConv2d``, so that checkpoints
    are interchangeable.

    Args:
        in_channels, out_channels: number of channels.

    Shapes: input ``(N, C_in, H, W)``, offset ``(N, 18, H, W)`` in feature cells, output
    ``(N, C_out, H, W)`` in the dtype of the input, on CUDA under autocast in autocast's.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return auto_deform_conv2d(x, offset, self.weight)

    def at(self, x: Tensor, offset: Tensor, locations: Tensor) -> Tensor:
        """The output at some locations only, ``(n, C_out)`` in the dtype of the input.

        Args:
            x, offset: see :meth:`forward`.
            locations: indices into the flattened ``N * H * W``, ``(n,)`` in int64.
        """
        offset = offset.to(torch.promote_types(x.dtype, torch.float32))
        out_dtype = convolution_dtype(x) if x.is_cuda else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            if not x.is_cuda:
                return gathered_deform_conv2d(x, offset, self.weight, locations=locations)
            return _deform_conv2d_at_on_cuda(x, offset, self.weight, locations, out_dtype)


def takes_all_levels(layer: nn.Module, x: Tensor) -> bool:
    """Whether :func:`deform_levels` may replace the calls of a layer level by level.

    Args:
        layer: a deformable layer. Not if it has hooks, which would not be called.
        x: any of its inputs. Not on the CPU, without Triton, in an export or under
            ``torch.compile``.
    """
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    if hooked or not x.is_cuda or exporting() or compiling():
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
    """``activation(auto_deform_conv2d(...))`` of all pyramid levels by one matrix product.

    Call it only where :func:`takes_all_levels` is true.

    Args:
        xs, offsets, masks: one per level; see :func:`auto_deform_conv2d`.
        weight, bias: see :func:`auto_deform_conv2d`.
        activation: an elementwise function.

    Returns:
        ``(N, C_out, H, W)`` per level in the dtype of a convolution of ``xs``.
    """
    dtype = convolution_dtype(xs[0])
    wide = torch.promote_types(xs[0].dtype, torch.float32)
    with torch.autocast(xs[0].device.type, enabled=False):
        offsets, masks = ([part.to(wide) for part in parts] for parts in (offsets, masks))
        rows = im2col_deform_conv2d(xs, offsets, weight, masks, bias, dtype)
        return as_maps(rows if activation is None else activation(rows), xs)
