"""Functions that ``torch.compile`` is to leave alone."""

import functools
import sys
from collections.abc import Callable

import torch


def without_compiler(function: Callable) -> Callable:
    """As ``torch.compiler.disable``, but the compiler is not loaded by it.

    For what ``torch.compile`` of a training step (mmengine's ``compile=True``) fails on: NumPy,
    shapes that data decide, kernels that are launched from Python.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        if "torch._dynamo" not in sys.modules:  # nothing is compiled without it
            return function(*args, **kwargs)
        if call.outside is None:
            call.outside = torch.compiler.disable(function)
        return call.outside(*args, **kwargs)

    call.outside = None
    return call
