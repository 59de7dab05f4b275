"""Tensors that Python sees on ``cuda:0`` while C++ sees the CPU, and what each operator does."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from .autocast import HALF, cast_for_autocast
from .counts import Recorder, calling_line
from .rules import FACTORS, NO_LAUNCH, NONDETERMINISTIC, WAITS

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
RECORDER = Recorder()
# Whether float32 factors are rounded as tensor cores read them, where torch's settings allow TF32.
ROUNDING = {"tf32": True}

_ANSWERS = {
    Tensor.device.__get__: CUDA,
    Tensor.is_cuda.__get__: True,
    Tensor.is_cpu.__get__: False,
}
_INDEXING = frozenset(["index", "index_put", "index_put_", "_index_put_impl_"])
_real_to = Tensor.to


class SimulatedTensor(Tensor):
    """A tensor of the simulated device; ``inner`` holds its numbers on the CPU."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "SimulatedTensor":
        # C++ sees the CPU: autograd would ask the driver of a CUDA tensor for a stream.
        outer = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=CPU, requires_grad=False,
        )  # fmt: skip
        outer.inner = inner
        return outer

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"SimulatedTensor({self.inner})"

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ANSWERS:
            return _ANSWERS[func]
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            if name in _METHODS:
                return _METHODS[name](*args, **kwargs)
            args, kwargs = cast_for_autocast(name, args, kwargs)
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return run_operator(func, args, kwargs or {})


class EveryOperator(TorchDispatchMode):
    """Takes the operators that see no simulated tensor too: they may make the first one."""

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return run_operator(func, args, kwargs or {})


def inner(x: Any) -> Any:
    """The numbers of a simulated tensor; anything else as it is."""
    return x.inner if isinstance(x, SimulatedTensor) else x


def outer(x: Any) -> Any:
    """A tensor on the simulated device; anything else as it is."""
    return SimulatedTensor(x) if isinstance(x, Tensor) and not isinstance(x, SimulatedTensor) else x


def is_pinned(x: Tensor) -> bool:
    """Of a host tensor, whether it was allocated as pinned memory; a view of one counts as not."""
    return getattr(x, "pinned", False)


def is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


# Methods of a tensor that move data, or that have another result on CUDA.


class _ToCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.inner.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return SimulatedTensor(grad)


def _to_cpu(x: SimulatedTensor, reason: str) -> Tensor:
    RECORDER.sync(reason)
    return _ToCpu.apply(x)


def _refuse_numpy(self, *args: Any, **kwargs: Any) -> Any:
    raise TypeError(
        "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
        f"host memory first ({calling_line()})"
    )


def _tolist(self) -> list:
    RECORDER.sync("tolist")
    return self.inner.tolist()


def _new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
    RECORDER.sync("new_tensor of host data")
    RECORDER.launch("copy to device")
    return SimulatedTensor(torch.tensor(data, dtype=kwargs.get("dtype") or self.dtype))


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to``, for tensors of either device."""
    device, other, rest = None, kwargs.pop("other", None), []
    for arg in args:
        if isinstance(arg, Tensor):
            other = arg
        elif isinstance(arg, (torch.device, str)):
            device = arg
        elif isinstance(arg, int) and not isinstance(arg, bool):
            device = CUDA
        elif arg is not None:
            rest.append(arg)
    device = kwargs.pop("device", None) or device
    if other is not None:
        device, kwargs["dtype"] = CUDA if isinstance(other, SimulatedTensor) else CPU, other.dtype
    moved = self
    if isinstance(self, SimulatedTensor) and device is not None and not is_cuda(device):
        RECORDER.sync("copy to host")
        moved = _ToCpu.apply(self)
    elif not isinstance(self, SimulatedTensor) and is_cuda(device):
        if not (kwargs.get("non_blocking") and is_pinned(self)):
            RECORDER.sync("copy of pageable memory to device")
        RECORDER.launch("copy to device")
        moved = _ToCuda.apply(self) if self.requires_grad else SimulatedTensor(self.detach())
    if not rest and not kwargs:
        return moved
    with torch._C.DisableTorchFunctionSubclass():
        return _real_to(moved, *rest, **kwargs)


class _ToCuda(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return SimulatedTensor(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return inner(grad)


def _embedding_bag(indices: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Torch's own; for a 2-D input its Python code makes offsets on ``input.device``."""
    if indices.dim() == 2:
        num, width = indices.shape
        offsets = SimulatedTensor(torch.arange(0, num * width, width, dtype=indices.dtype))
        RECORDER.launch("arange")
        kwargs.pop("offsets", None)
        shares = kwargs.pop("per_sample_weights", None)
        shares = None if shares is None else shares.reshape(-1)
        return torch.nn.functional.embedding_bag(
            indices.reshape(-1), weight, offsets, *args, per_sample_weights=shares, **kwargs
        )
    return torch.nn.functional.embedding_bag(indices, weight, *args, **kwargs)


def _one_hot(labels: Tensor, num_classes: int = -1) -> Tensor:
    """Torch's own; seeing a tensor subclass, it would compare with numbers made on the CPU."""
    if num_classes == -1:
        RECORDER.launch("max")
        RECORDER.sync("one_hot without num_classes")
    for operator in ("zeros", "scatter_"):
        RECORDER.launch(operator)
    return SimulatedTensor(torch.nn.functional.one_hot(labels.inner, num_classes))


_METHODS = {
    "get_device": lambda self: 0,
    "numpy": _refuse_numpy,
    "__array__": _refuse_numpy,
    "tolist": _tolist,
    "cpu": lambda self, *args, **kwargs: _to_cpu(self, "copy to host"),
    "cuda": lambda self, *args, **kwargs: self,
    "to": to,
    "new": lambda self, *args, **kwargs: SimulatedTensor(self.inner.new(*args, **kwargs)),
    "new_tensor": _new_tensor,
    "embedding_bag": _embedding_bag,
    "one_hot": _one_hot,
}


# ATen operators.


def run_operator(func: Any, args: tuple, kwargs: dict | None) -> Any:
    """Run one operator on the CPU under CUDA's rules, and count it."""
    name = func.overloadpacket.__name__
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    on_device = [x for x in tensors if isinstance(x, SimulatedTensor)]
    kwargs = dict(kwargs)
    pinned = bool(kwargs.pop("pin_memory", False))
    if name == "is_pinned":
        return is_pinned(args[0])
    makes = is_cuda(kwargs.get("device"))
    if makes:
        kwargs["device"] = CPU
    if name == "copy_":
        return _copy(*args, **kwargs)
    if not on_device:
        if not makes:
            made = func(*args, **kwargs)
            if pinned:
                made.pinned = True
            return made
        if tensors:
            RECORDER.sync("copy of pageable memory to device")
    elif len(on_device) < len(tensors):
        _check_devices(name, args, tensors, on_device)
    _count(name, args, kwargs, on_device)
    plain, named = tree_map(inner, args), tree_map(inner, kwargs)
    if ROUNDING["tf32"] and name in FACTORS and _tf32_allowed(name):
        first, end = FACTORS[name]
        plain = (*plain[:first], *map(_tf32, plain[first:end]), *plain[end:])
    half = plain[0].dtype if name in FACTORS and "out" not in named else None
    if half in HALF:  # tensor cores add up in float32; the CPU's own way takes ten times as long
        out = tree_map(_to_half(half), func(*tree_map(_to_float, plain), **named))
    else:
        out = func(*plain, **named)
    if name == "_local_scalar_dense":
        return out
    out = tree_map(outer, out)
    if func._schema.is_mutable or any(r.alias_info for r in func._schema.returns):
        if isinstance(out, (Tensor, tuple, list)):
            return return_and_correct_aliasing(func, args, kwargs, out)
    return out


def _to_float(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x


def _to_half(dtype: torch.dtype) -> Callable:
    return lambda x: x.to(dtype) if isinstance(x, Tensor) else x


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    inner(target).copy_(inner(source))
    to_host, to_device = isinstance(source, SimulatedTensor), isinstance(target, SimulatedTensor)
    if to_host and not to_device and not (non_blocking and is_pinned(target)):
        RECORDER.sync("copy to host")
    elif to_device and not to_host and source.dim() and not (non_blocking and is_pinned(source)):
        RECORDER.sync("copy of pageable memory to device")
    if to_host or to_device:
        RECORDER.launch("copy_")
    return target


def _check_devices(
    name: str, args: tuple, tensors: Sequence[Tensor], on_device: Sequence[Tensor]
) -> None:
    """A CPU tensor without dimensions may meet CUDA tensors, and so may a CPU index."""
    strangers = [x for x in tensors if not isinstance(x, SimulatedTensor)]
    if name in _INDEXING and isinstance(args[0], SimulatedTensor):
        if any(isinstance(x, Tensor) and not isinstance(x, SimulatedTensor) for x in args[1]):
            RECORDER.sync("index on the host")
        values = [] if name == "index" else [args[2]]
        strangers = [x for x in values if not isinstance(x, SimulatedTensor)]
    strangers = [x for x in strangers if x.dim() > 0]
    if strangers and not _called_by_autograd():
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 "
            f"and cpu! ({name} of CPU {[tuple(x.shape) for x in strangers]} and CUDA "
            f"{[tuple(x.shape) for x in on_device]}, {calling_line()})"
        )


def _called_by_autograd() -> bool:
    """Whether C++ called the operator in a backward pass.

    Where there is no gradient, it makes zeros on the device that it sees, the CPU.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_filename.endswith((__file__, "torch/_compile.py", "eval_frame.py")):
        frame = frame.f_back
    return frame.f_code.co_name == "_engine_run_backward"


def _count(name: str, args: tuple, kwargs: dict, on_device: Sequence[Tensor]) -> None:
    if torch.are_deterministic_algorithms_enabled() and name in NONDETERMINISTIC:
        if NONDETERMINISTIC[name](args, kwargs):
            raise RuntimeError(
                f"{name} does not have a deterministic implementation, but you set "
                f"'torch.use_deterministic_algorithms(True)' ({calling_line()})"
            )
    if name in WAITS:
        RECORDER.sync(name)
    elif name in _INDEXING and any(
        isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1]
    ):
        RECORDER.sync(f"{name} by a mask")
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        RECORDER.sync(name)
    if name not in NO_LAUNCH:
        RECORDER.launch(name)


def _tf32_allowed(name: str) -> bool:
    """Whether torch's settings let a convolution or product use TF32."""
    backend = torch.backends.cuda.matmul
    if name.startswith("convolution"):
        backend = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)
    precision = getattr(backend, "fp32_precision", None)  # torch 2.9; the older flag may then raise
    return backend.allow_tf32 if precision is None else precision == "tf32"


def _tf32(x: Tensor) -> Tensor:
    """Float32 rounded to the 10 bits of mantissa that tensor cores read."""
    if x.dtype != torch.float32:
        return x
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32).view(x.shape)
