"""A flag that a GPU sets and the host reads without host-device synchronisation."""

import torch
from torch import Tensor


class HostFlag:
    """A bool in host memory, True at first, that a tensor of the device sets.

    Reading a tensor of a GPU on the host (``bool(x)``, ``x.item()``) is a host-device
    synchronisation: the host stops until the GPU has done all that it was given. This flag is
    copied to pinned memory without one. What the host reads may therefore be out of date: a loop
    that ends when the flag is False takes some more steps, which must change nothing. On the CPU
    the host reads the last value.

    Args:
        values: any tensor of the device.

    Example:
        >>> x = torch.zeros(3)
        >>> unfinished = HostFlag(x)
        >>> while unfinished:
        ...     x = x + 1
        ...     unfinished.set((x < 4).any())
        >>> x
        tensor([4., 4., 4.])
    """

    def __init__(self, values: Tensor) -> None:
        self._value = torch.ones((), dtype=torch.bool, pin_memory=values.is_cuda)
        self._on_host = self._value.numpy()

    def set(self, value: Tensor) -> None:
        """Set the flag to a bool tensor of the device, shape ``()``."""
        self._value.copy_(value, non_blocking=True)

    def __bool__(self) -> bool:
        """The value on the host."""
        return bool(self._on_host)
