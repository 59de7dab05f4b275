"""Functions that ``torch.compile`` does not trace, and whether it or an export is tracing."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch


def without_compiler(function: Callable) -> Callable:
    """Decorator as ``torch.compiler.disable``, but without importing the compiler.

    For what ``torch.compile`` of a training step (mmengine's ``compile=True``) cannot trace: NumPy,
    data-dependent shapes, kernels that are launched from Python.

    Args:
        function: runs uncompiled, and breaks the graph of a compiled caller.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:  # without it nothing is compiled
            return function(*args, **kwargs)
        if wrapper.disabled is None:
            wrapper.disabled = torch.compiler.disable(function)
        return wrapper.disabled(*args, **kwargs)

    wrapper: Any = call
    wrapper.disabled = None
    return wrapper


def compiling() -> bool:
    """Whether ``torch.compile`` is tracing; ``torch.compiler.is_compiling`` since torch 2.3."""
    if hasattr(torch.compiler, "is_compiling"):
        return torch.compiler.is_compiling()
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and dynamo.is_compiling()


def exporting() -> bool:
    """Whether ``torch.jit``, ``torch.onnx`` or ``torch.export`` is tracing the model."""
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or _is_exporting()


# torch.compiler.is_exporting exists since torch 2.7. Before, is_compiling is true under
# torch.export, and under torch.compile, too.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", compiling)
