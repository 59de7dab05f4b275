"""Numbers that a function of mmdet's turns into a tensor on a GPU, without a wait for it."""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _FillInsteadOfCopy(TorchFunctionMode):
    """``tensor.new_tensor([number])`` on a GPU fills its memory there.

    ``new_tensor`` makes the tensor on the host and copies it, for which the host waits.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.new_tensor and args[0].is_cuda and not kwargs:
            x, data = args
            if isinstance(data, list) and len(data) == 1 and isinstance(data[0], (int, float)):
                return x.new_full((1,), data[0])
        return func(*args, **(kwargs or {}))


def numbers_made_on_device(x: Tensor):
    """A context in which ``new_tensor([number])`` does not make the host wait for the GPU.

    mmdet's ``bbox_overlaps``, and with it each of its IoU losses, makes its ``eps`` that way.

    Args:
        x: a tensor of the device. On the CPU, and while ``torch.compile`` traces, nothing changes.
    """
    if not x.is_cuda or torch.compiler.is_compiling():
        return nullcontext()
    return _FillInsteadOfCopy()
