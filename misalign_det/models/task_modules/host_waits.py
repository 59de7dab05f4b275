"""Where assignment may read a value on the host."""

from torch import Tensor


def may_look(values: Tensor) -> bool:
    """Reading a flag is free on the CPU; on a GPU it would make the host wait."""
    return not values.is_cuda
