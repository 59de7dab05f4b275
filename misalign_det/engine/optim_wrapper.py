"""Mixed precision without a GPU: mmengine's own wrapper needs CUDA and a loss scaler."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Forward passes under bfloat16 autocast, on the CPU or a GPU; weights stay float32.

    bfloat16 has float32's range, so there is no loss to scale. On a CPU that computes in bfloat16
    (``avx512_bf16`` or ``amx_bf16`` among its flags) a training step takes about half the time; on
    an older one it is slower than float32.

    Args: those of mmengine's ``OptimWrapper``.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        optim_wrapper = dict(type='BFloat16OptimWrapper')
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
