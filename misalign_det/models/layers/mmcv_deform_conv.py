"""Deformable convolution by mmcv's op, for CUDA where Triton does not work."""

import torch.nn.functional as F
from mmcv.ops.deform_conv import DeformConv2dFunction
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dFunction
from torch import Tensor

from .matmul_precision import convolution_precision

IM2COL_STEP = 32  # images that mmcv's kernel samples at once, its default
MAX_BYTES = 2**30 - 1  # of these samples
MAX_COLUMNS = 2**31 - 1  # samples that mmcv's kernel can count


class _DeformConv2d(DeformConv2dFunction):
    """mmcv's function, with TF32 in its products where torch's convolutions use it."""

    @staticmethod
    def forward(ctx, *args):
        with convolution_precision():
            return DeformConv2dFunction.forward(ctx, *args)

    @staticmethod
    def backward(ctx, grad):
        with convolution_precision():
            return DeformConv2dFunction.backward(ctx, grad)


class _ModulatedDeformConv2d(ModulatedDeformConv2dFunction):
    """mmcv's function, with TF32 in its products where torch's convolutions use it."""

    @staticmethod
    def forward(ctx, *args):
        with convolution_precision():
            return ModulatedDeformConv2dFunction.forward(ctx, *args)

    @staticmethod
    def backward(ctx, grad):
        with convolution_precision():
            return ModulatedDeformConv2dFunction.backward(ctx, grad)


def mmcv_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, by mmcv's op.

    mmcv's op reads memory as contiguous NCHW whatever the strides are, refuses maps smaller than
    the kernel (the top level of a small image), and requires a batch that its step divides. Here
    inputs are made contiguous, padded, and the step chosen.

    Args:
        x, offset, weight, mask: see :func:`.deform_conv.sampled_deform_conv2d`; of one dtype, with
            at least one image.

    Returns:
        ``(N, C_out, H, W)``.
    """
    height, width = x.shape[-2:]
    missing = (0, max(3 - width, 0), 0, max(3 - height, 0))
    if any(missing):  # with zeros to the right and below, as outside the map
        x, offset = F.pad(x, missing), F.pad(offset, missing)
        mask = None if mask is None else F.pad(mask, missing)
    x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()
    if mask is None:
        out = _DeformConv2d.apply(x, offset, weight, 1, 1, 1, 1, 1, False, im2col_step(x))
    else:
        mask = mask.contiguous()
        out = _ModulatedDeformConv2d.apply(x, offset, mask, weight, None, 1, 1, 1, 1, 1)
    return out[..., :height, :width]


def im2col_step(x: Tensor) -> int:
    """Images per step of mmcv's kernel: a divisor of their number, for a buffer below 1 GiB.

    At least one image, which is the step of mmcv's ``modulated_deform_conv2d``.
    """
    image = 9 * x.shape[1:].numel()
    most = min(len(x), IM2COL_STEP, MAX_COLUMNS // image, MAX_BYTES // (image * x.element_size()))
    return max((step for step in range(1, most + 1) if len(x) % step == 0), default=1)
