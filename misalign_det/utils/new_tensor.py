"""``tensor.new_tensor([number])`` on a GPU without a host-device synchronisation."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from .compiler import compiling


class _FillInsteadOfCopy(TorchFunctionMode):
    """``tensor.new_tensor([number])`` on a GPU fills memory of the GPU.

    By itself it makes the tensor on the host and copies it, which synchronises host and device.
    """

    def __torch_function__(
        self, func: Callable, types: Iterable, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is Tensor.new_tensor and args[0].is_cuda and not kwargs:
            x, data = args
            if isinstance(data, list) and len(data) == 1 and isinstance(data[0], (int, float)):
                return x.new_full((1,), data[0])
        return func(*args, **(kwargs or {}))


def new_tensor_without_sync(x: Tensor) -> AbstractContextManager:
    """A context in which ``new_tensor([number])`` does not synchronise host and device.

    mmdet's ``bbox_overlaps``, and with it each of mmdet's IoU losses, makes its ``eps`` that way.

    Args:
        x: a tensor on the device. On the CPU, and under ``torch.compile``, nothing changes.

    Example:
        >>> import torch
        >>> from mmdet.structures.bbox import bbox_overlaps
        >>> boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
        >>> with new_tensor_without_sync(boxes):
        ...     bbox_overlaps(boxes, boxes)
        tensor([[1.]])
    """
    if not x.is_cuda or compiling():
        return nullcontext()
    return _FillInsteadOfCopy()
