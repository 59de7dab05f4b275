"""mmcv's compiled operators: their checks on CUDA, the CPU's results, and their launches.

From mmcv's CUDA sources. ``deform_conv`` requires contiguous tensors. ``modulated_deform_conv``
accepts any and reads their memory as NCHW. ``nms`` requires float32 and has one host-device
synchronisation, for the boxes that it keeps. The focal loss has no bfloat16, computes each step in
float16 for float16 input, and has one host-device synchronisation, for a check of its labels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from .counts import calling_line
from .tensor import RECORDER, SimulatedTensor, inner

FLOATING = (torch.float16, torch.float32, torch.float64)


@contextmanager
def checked_mmcv_ops() -> Iterator[None]:
    """Check and count mmcv's operators on simulated tensors in the ``with`` block."""
    replaced = [
        (
            "deform_conv",
            dict.fromkeys(
                (
                    "deform_conv_forward",
                    "deform_conv_backward_input",
                    "deform_conv_backward_parameters",
                ),
                _deform_conv,
            ),
        ),
        (
            "modulated_deform_conv",
            dict.fromkeys(
                ("modulated_deform_conv_forward", "modulated_deform_conv_backward"),
                _modulated_deform_conv,
            ),
        ),
        ("nms", dict(nms=_nms, nms_match=_nms_match)),
        (
            "focal_loss",
            dict(
                sigmoid_focal_loss_forward=_focal_loss,
                sigmoid_focal_loss_backward=_focal_loss,
            ),
        ),
    ]
    with ExitStack() as stack:
        for module_name, functions in replaced:
            module = import_module(f"mmcv.ops.{module_name}")
            real = module.ext_module
            names = [name for name in dir(real) if not name.startswith("__")]
            checked = SimpleNamespace(**{name: getattr(real, name) for name in names})
            for name, function in functions.items():
                setattr(checked, name, _on_device(name, function, getattr(real, name)))
            stack.enter_context(patch.object(module, "ext_module", checked))
        yield


def _on_device(name: str, function: Callable, real: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if not any(isinstance(x, SimulatedTensor) for x in tensors):
            return real(*args, **kwargs)
        if not all(isinstance(x, SimulatedTensor) for x in tensors):
            raise RuntimeError(f"{name}: all tensors must be on one device ({calling_line()})")
        return function(name, real, tensors, args, kwargs)

    return call


def _run(real: Callable, args: tuple, kwargs: dict) -> Any:
    return real(*map(inner, args), **{key: inner(value) for key, value in kwargs.items()})


def _check_dtype(name: str, tensors: Sequence[torch.Tensor]) -> None:
    for x in tensors:
        if x.is_floating_point() and x.dtype not in FLOATING:
            raise RuntimeError(f'"{name}" not implemented for {x.dtype} ({calling_line()})')
    found = {x.dtype for x in tensors if x.is_floating_point()}
    if len(found) > 1:
        raise RuntimeError(f"{name}: expected one scalar type but found {found} ({calling_line()})")


def _deform_conv(
    name: str, real: Callable, tensors: Sequence[torch.Tensor], args: tuple, kwargs: dict
) -> Any:
    _check_dtype(name, tensors)
    for x in tensors:
        if not x.is_contiguous():
            raise RuntimeError(f"{name}: tensors must be contiguous ({calling_line()})")
    _check_order(name)
    # The samples are made and multiplied step by step of im2col_step images.
    batch = len(args[0])
    step = kwargs.get("im2col_step", args[-1])
    step = step if isinstance(step, int) else batch
    RECORDER.launch(f"mmcv.{name}", 3 + 3 * max(1, batch // max(1, min(step, batch))))
    return _run(real, args, kwargs)


def _check_order(name: str) -> None:
    """Gradients of the input are added with atomics, of which torch knows nothing."""
    if "backward" in name and torch.are_deterministic_algorithms_enabled():
        RECORDER.problem(f"{name} adds in any order")


def _modulated_deform_conv(
    name: str, real: Callable, tensors: Sequence[torch.Tensor], args: tuple, kwargs: dict
) -> Any:
    _check_dtype(name, tensors)
    _check_order(name)
    for x in tensors:
        image = x[0] if x.dim() == 4 else x
        if x.numel() and not inner(image).is_contiguous():
            RECORDER.problem(f"{name} reads {tuple(x.shape)} of strides {x.stride()} as NCHW")
    RECORDER.launch(f"mmcv.{name}", 2 + 3 * len(args[0]))
    return _run(real, args, kwargs)


def _nms(
    name: str, real: Callable, tensors: Sequence[torch.Tensor], args: tuple, kwargs: dict
) -> Any:
    for x in tensors:
        if x.dtype != torch.float32:
            raise RuntimeError(f"nms: expected scalar type Float but found {x.dtype}")
    RECORDER.sync("mmcv.nms")
    RECORDER.launch("mmcv.nms", 5)
    return SimulatedTensor(_run(real, args, kwargs))


def _nms_match(
    name: str, real: Callable, tensors: Sequence[torch.Tensor], args: tuple, kwargs: dict
) -> Any:
    raise RuntimeError("nms_match_impl: no implementation for device cuda")


def _focal_loss(
    name: str, real: Callable, tensors: Sequence[torch.Tensor], args: tuple, kwargs: dict
) -> Any:
    logits, target, weight, out = (inner(x) for x in tensors)
    for x in tensors:
        if not x.is_contiguous():
            raise RuntimeError(f"{name}: tensors must be contiguous ({calling_line()})")
    _check_dtype(name, [x for x in tensors if x.numel()])
    forward = name.endswith("forward")
    if forward:
        target.max()  # which an empty tensor does not have
        RECORDER.sync("mmcv.sigmoid_focal_loss")
        RECORDER.launch("max")
    RECORDER.launch(f"mmcv.{name}")
    gamma, alpha = (kwargs.get(key) for key in ("gamma", "alpha"))
    rest = [x for x in args if not isinstance(x, Tensor)]
    gamma, alpha = gamma if gamma is not None else rest[0], alpha if alpha is not None else rest[1]
    compute = _focal_forward if forward else _focal_backward
    value = compute(logits, target, gamma, alpha)
    if weight.numel():
        value = value * weight[target.clamp(max=len(weight) - 1)][:, None]
    out.copy_(value.to(out.dtype))


def _rounded(dtype: torch.dtype) -> Callable:
    """Rounds to half precision after each step, as the kernel's arithmetic does."""
    return (lambda x: x.to(dtype).float()) if dtype == torch.float16 else (lambda x: x)


def _focal_terms(logits: torch.Tensor, target: torch.Tensor, alpha: float) -> tuple:
    rounded = _rounded(logits.dtype)
    x = logits.float() if logits.dtype == torch.float16 else logits
    # Of c10::Half, numeric_limits of float as a Half: zero.
    tiny = 0.0 if logits.dtype == torch.float16 else torch.finfo(torch.float32).tiny
    p = rounded(1 / (1 + (-x).exp()))
    positive = torch.arange(x.shape[1]) == target[:, None]
    share = torch.tensor(alpha, dtype=x.dtype)
    share = torch.where(positive, -rounded(share), -rounded(1 - share))
    return rounded, p, rounded(1 - p), positive, share, tiny


def _focal_forward(
    logits: torch.Tensor, target: torch.Tensor, gamma: float, alpha: float
) -> torch.Tensor:
    rounded, p, q, positive, share, tiny = _focal_terms(logits, target, alpha)
    own = rounded(rounded(q**gamma) * rounded(p.clamp(min=tiny).log()))
    other = rounded(rounded(p**gamma) * rounded(q.clamp(min=tiny).log()))
    # The kernel adds both terms, one of them times zero: NaN where the other is infinite.
    zero = torch.zeros_like(p)
    return share * torch.where(positive, own, other) + zero * torch.where(positive, other, own)


def _focal_backward(
    logits: torch.Tensor, target: torch.Tensor, gamma: float, alpha: float
) -> torch.Tensor:
    rounded, p, q, positive, share, tiny = _focal_terms(logits, target, alpha)
    own = rounded(q**gamma) * rounded(q - rounded(gamma * p * p.clamp(min=tiny).log()))
    other = rounded(p**gamma) * rounded(rounded(gamma * q * q.clamp(min=tiny).log()) - p)
    zero = torch.zeros_like(p)
    return share * torch.where(positive, own, other) + zero * torch.where(positive, other, own)
