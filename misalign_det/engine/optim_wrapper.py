"""Mixed precision in bfloat16, also without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward passes under bfloat16 autocast, on the CPU or a GPU; weights stay float32.

    mmengine's ``AmpOptimWrapper`` scales the loss and needs a GPU. bfloat16 has the range of
    float32, so no scaling is needed. On a CPU with bfloat16 instructions (``avx512_bf16`` or
    ``amx_bf16`` among its flags) a training step takes about half the time of float32; on older
    CPUs it takes longer. ``tools/train.py --amp`` uses this wrapper where there is no GPU.

    Args:
        *args: passed to mmengine's ``OptimWrapper``.
        **kwargs: passed to mmengine's ``OptimWrapper``: ``optimizer``, ``clip_grad``,
            ``accumulative_counts``.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        optim_wrapper = dict(
            type='BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)
        )
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Autocast to bfloat16, besides what mmengine's wrapper does for the forward pass.

        Args:
            model: its parameters' device decides where autocast is enabled.
        """
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
