"""Where assignment may read a value on the host, and how without waiting for a GPU."""

import torch
from torch import Tensor


def may_look(values: Tensor) -> bool:
    """Reading a flag is free on the CPU; on a GPU it would make the host wait."""
    return not values.is_cuda


class HostFlag:
    """A flag that the device sets and the host reads without waiting.

    On the CPU the host reads what was set last. On a GPU what it reads may be older: a loop that
    ends once the flag is False takes some more steps, which must change nothing.

    Args:
        values: any tensor of the device.
    """

    def __init__(self, values: Tensor) -> None:
        self._value = torch.ones((), dtype=torch.bool, pin_memory=values.is_cuda)
        self._on_host = self._value.numpy()

    def set(self, value: Tensor) -> None:
        """Set it to a bool tensor of the device, shape ``()``."""
        self._value.copy_(value, non_blocking=True)

    def __bool__(self) -> bool:
        return bool(self._on_host)
