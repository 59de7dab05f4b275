"""One deformable convolution with equal forms: mmcv's CUDA op, gathered rows, ``grid_sample``."""

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2d, deform_conv2d, modulated_deform_conv2d
from torch import Tensor

from .row_samples import sample_taps

IM2COL_STEP = 32  # images a step of mmcv's kernel, its default


def sampled_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, by ``grid_sample`` and one matrix product.

    The same values and gradients as ``mmcv.ops.deform_conv2d`` (with a mask,
    ``modulated_deform_conv2d``), made of operators that export to ONNX.

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
    """:func:`sampled_deform_conv2d` on the CPU: samples are rows of channels, in half the time.

    Samples and product are in the offsets' precision, as with mmcv's op on CUDA.

    Args:
        x, offset, weight, mask: as there.
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
    return out.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def auto_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """mmcv's op on CUDA, on the CPU the gathered form; to export, the sampled one.

    Samples are taken in float32 (float64 for float64 input) whatever autocast says: positions in
    half precision are off by whole cells on large maps. The output has the dtype of ``x``.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        offset = offset.to(dtype)
        mask = None if mask is None else mask.to(dtype)
        if not x.is_cuda and not _exporting():
            return gathered_deform_conv2d(x, offset, weight, mask)
        # mmcv refuses maps smaller than its kernel, as the top level of a small image is.
        if min(x.shape[-2:]) < 3 or _exporting():
            return sampled_deform_conv2d(x, offset, weight, mask)
        wide, weight = x.to(dtype), weight.to(dtype)
        if mask is not None:
            out = modulated_deform_conv2d(wide, offset, mask, weight, None, 1, 1, 1, 1, 1)
        else:
            # mmcv's kernel splits the batch into equal steps; a batch it cannot split runs image
            # by image.
            step = IM2COL_STEP if len(x) % min(len(x), IM2COL_STEP) == 0 else 1
            out = deform_conv2d(wide, offset, weight, 1, 1, 1, 1, 1, False, step)
    return out.to(x.dtype)


class AutoDeformConv2d(DeformConv2d):
    """3x3 deformable convolution by :func:`auto_deform_conv2d`, with offsets from outside.

    No bias, no groups; parameters as in ``mmcv.ops.DeformConv2d``, so checkpoints are
    interchangeable.

    Shapes: input ``(N, C_in, H, W)``, offset ``(N, 18, H, W)`` in cells, output
    ``(N, C_out, H, W)`` in the input's dtype.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return auto_deform_conv2d(x, offset, self.weight)

    def at(self, x: Tensor, offset: Tensor, locations: Tensor) -> Tensor:
        """The output at some locations alone, ``(n, C_out)``, places in ``N * H * W``."""
        offset = offset.to(torch.promote_types(x.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            return gathered_deform_conv2d(x, offset, self.weight, locations=locations)


def _exporting() -> bool:
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
