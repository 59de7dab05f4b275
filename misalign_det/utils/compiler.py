"""Functions that ``torch.compile`` does not trace, and whether an export is tracing."""

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


def exporting() -> bool:
    """Whether ``torch.jit``, ``torch.onnx`` or ``torch.export`` is tracing the model."""
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or _is_exporting()


# torch.compiler.is_exporting came with torch 2.7. Before, is_compiling is true under torch.export,
# and under torch.compile too.
_is_exporting = getattr(torch.compiler, "is_exporting", None) or getattr(
    torch.compiler, "is_compiling", bool
)
