"""mmcv's deformable convolution, for CUDA where Triton does not run."""

import torch.nn.functional as F
from mmcv.ops.deform_conv import DeformConv2dFunction
from mmcv.ops.modulated_deform_conv import ModulatedDeformConv2dFunction
from torch import Tensor

from .matmul_precision import convolution_precision

IM2COL_STEP = 32  # images that mmcv's kernel samples at a time, its default
MAX_BYTES = 2**30 - 1  # of their samples
MAX_COLUMNS = 2**31 - 1  # samples that its kernel can count


class _DeformConv2d(DeformConv2dFunction):
    """With TF32 in its products where torch's convolutions use it."""

    @staticmethod
    def forward(ctx, *args):
        with convolution_precision():
            return DeformConv2dFunction.forward(ctx, *args)

    @staticmethod
    def backward(ctx, grad):
        with convolution_precision():
            return DeformConv2dFunction.backward(ctx, grad)


class _ModulatedDeformConv2d(ModulatedDeformConv2dFunction):
    """With TF32 in its products where torch's convolutions use it."""

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
    """mmcv's op on inputs that it would refuse or misread.

    It takes memory for NCHW whatever the strides say, refuses maps smaller than its kernel, as the
    top level of a small image is, and wants a batch that it can split into equal steps.

    Args:
        x, offset, weight, mask: see :func:`.deform_conv.sampled_deform_conv2d`; of one dtype, at
            least one image.

    Returns:
        ``(N, C_out, H, W)``.
    """
    height, width = x.shape[-2:]
    missing = (0, max(3 - width, 0), 0, max(3 - height, 0))
    if any(missing):  # zeros to the right and below: outside the map all is zero anyway
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
    """Images a step of mmcv's kernel: a divisor of their number, for a buffer under 1 GiB.

    One image is the least, and what :func:`modulated_deform_conv2d` always takes.
    """
    image = 9 * x.shape[1:].numel()
    most = min(len(x), IM2COL_STEP, MAX_COLUMNS // image, MAX_BYTES // (image * x.element_size()))
    return max((step for step in range(1, most + 1) if len(x) % step == 0), default=1)
