"""The context of the simulated device, and its replacements of torch's functions."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from misalign_det.utils import triton_support

from . import autocast, tensor
from .counts import Counts
from .mmcv_ops import checked_mmcv_ops
from .tensor import CUDA, RECORDER, EveryOperator, SimulatedTensor, inner, is_cuda

NAME = "simulated CUDA device"


class SimulatedCuda:
    """A context in which ``"cuda"`` is the simulated device.

    Args:
        tf32: whether float32 factors are rounded to TF32 where torch's settings allow it: by
            default in convolutions, and not in matrix products.
    """

    def __init__(self, tf32: bool = True) -> None:
        self.tf32 = tf32
        self._stack = ExitStack()

    def __enter__(self) -> "SimulatedCuda":
        enter = self._stack.enter_context
        for owner, name, new in _replacements():
            enter(patch.object(owner, name, new, create=not hasattr(owner, name)))
        enter(patch.dict(tensor.ROUNDING, tf32=self.tf32))
        enter(checked_mmcv_ops())
        enter(EveryOperator())
        triton_support._works.cache_clear()
        triton_support.has_triton(SimulatedTensor(torch.zeros(1)))  # its cost is not counted
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        triton_support._works.cache_clear()

    @contextmanager
    def count(self) -> Iterator[Counts]:
        """Count launches and syncs in the ``with`` block."""
        counts = Counts()
        RECORDER.open.append(counts)
        try:
            yield counts
        finally:
            RECORDER.open.remove(counts)


def _replacements() -> list[tuple]:
    """``(owner, name, value)`` of everything that is replaced."""
    cuda = dict(
        _lazy_init=lambda: None,
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        device=lambda index: nullcontext(),
        empty_cache=lambda: None,
        get_device_capability=lambda device=None: (9, 0),
        get_device_name=lambda device=None: NAME,
        is_bf16_supported=lambda *args, **kwargs: True,
        manual_seed_all=lambda seed: None,
        synchronize=lambda device=None: RECORDER.sync("synchronize"),
    )
    replaced = [(torch.cuda, name, new) for name, new in cuda.items()]
    is_enabled, get_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype

    def is_autocast_enabled(device_type: str = "cuda") -> bool:
        return autocast.is_enabled() if is_cuda(device_type) else is_enabled(device_type)

    def get_autocast_dtype(device_type: str) -> torch.dtype:
        return autocast.dtype() if is_cuda(device_type) else get_dtype(device_type)

    return replaced + [
        (torch, "autocast", autocast.Autocast),
        (torch.amp, "autocast", autocast.Autocast),
        (torch.amp.autocast_mode, "autocast", autocast.Autocast),
        (torch, "is_autocast_enabled", is_autocast_enabled),
        (torch, "get_autocast_dtype", get_autocast_dtype),
        (torch, "get_autocast_gpu_dtype", autocast.dtype),
        (torch, "tensor", _made_on_device(torch.tensor)),
        (torch, "as_tensor", _made_on_device(torch.as_tensor)),
        (torch, "inference_mode", _inference_mode),
        (torch.autograd, "_engine_run_backward", _backward(torch.autograd._engine_run_backward)),
        (Tensor, "to", tensor.to),
        (Tensor, "cuda", lambda self, *args, **kwargs: self.to(CUDA)),
        (Tensor, "pin_memory", _pin_memory),
        (Tensor, "is_pinned", lambda self, *args: tensor.is_pinned(self)),
        (nn.Module, "to", _module_to(nn.Module.to)),
        (nn.Module, "cuda", lambda self, *args: self.to(CUDA)),
        (triton_support, "_start", _interpret),
    ]


def _inference_mode(mode: bool = True) -> Any:
    """Tensor subclasses have no version counter in inference mode."""
    return torch.no_grad() if mode else nullcontext()


def _backward(real: Callable) -> Callable:
    """With tensors that know where they are: ``Tensor.backward`` switches that off."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._EnableTorchFunction():
            return real(*args, **kwargs)

    return call


def _pin_memory(self: Tensor, *args: Any) -> Tensor:
    copy = self.clone()
    copy.pinned = True
    return copy


def _made_on_device(make: Callable) -> Callable:
    def call(data: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_cuda(kwargs.get("device")):
            return make(data, *args, **kwargs)
        kwargs.pop("device")
        if isinstance(data, SimulatedTensor):
            return data.to(**kwargs) if kwargs else data
        RECORDER.sync("copy of host data to device")
        RECORDER.launch("copy to device")
        return SimulatedTensor(make(data, *args, **kwargs))

    return call


def _module_to(real: Callable) -> Callable:
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device = kwargs.pop("device", None)
        rest = []
        for arg in args:
            if isinstance(arg, (str, torch.device)):
                device = arg
            elif isinstance(arg, int) and not isinstance(arg, (bool, torch.dtype)):
                device = CUDA
            else:
                rest.append(arg)
        layout = kwargs.pop("memory_format", None)
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    moved = _moved(parameter.detach(), device, layout)
                    module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = _moved(buffer, device, layout)
        return real(self, *rest, **kwargs) if rest or kwargs else self

    return call


def _moved(x: Tensor, device: Any, layout: Any) -> Tensor:
    on_device = isinstance(x, SimulatedTensor) if device is None else is_cuda(device)
    numbers = inner(x).clone()
    if layout is not None and x.dim() == 4:
        numbers = numbers.contiguous(memory_format=layout)
    return SimulatedTensor(numbers) if on_device else numbers


def _interpret(kernel: Any, grid: Any, args: tuple, kwargs: dict) -> None:
    """A Triton kernel in its interpreter, on the tensors' numbers."""
    RECORDER.launch(f"triton.{kernel.__name__}")
    for arg in args:
        if isinstance(arg, Tensor) and not isinstance(arg, SimulatedTensor):
            raise ValueError(f"Pointer argument of {kernel.__name__} is on the CPU.")
    kernel[grid](*map(inner, args), **{key: inner(value) for key, value in kwargs.items()})
