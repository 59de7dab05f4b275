"""CUDA's autocast, by the names of the Python functions that are called."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from .rules import FLOAT32, LOWER_PRECISION, REFUSED_IN_AUTOCAST, WIDEST

HALF = (torch.float16, torch.bfloat16)
# (enabled, dtype) of each context that is open; and the casts of parameters, kept until the
# outermost one ends.
_contexts: list[tuple[bool, torch.dtype]] = []
_casts: dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] = {}
_real = torch.autocast


class Autocast(_real):
    """``torch.autocast``; for ``"cuda"`` the simulated one."""

    def __init__(
        self,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        self.simulated = torch.device(device_type).type == "cuda"
        self.state = (enabled, dtype or torch.float16)
        kind = "cpu" if self.simulated else device_type
        super().__init__(kind, dtype, enabled and not self.simulated, cache_enabled)

    def __enter__(self) -> Any:
        if not self.simulated:
            return super().__enter__()
        _contexts.append(self.state)
        return self

    def __exit__(self, *error: Any) -> Any:
        if not self.simulated:
            return super().__exit__(*error)
        _contexts.pop()
        if not _contexts:
            _casts.clear()


def is_enabled() -> bool:
    return bool(_contexts) and _contexts[-1][0]


def dtype() -> torch.dtype:
    return _contexts[-1][1] if _contexts else torch.float16


def cast_for_autocast(name: str, args: tuple, kwargs: Any) -> tuple:
    """The arguments in the precision in which CUDA's autocast runs the function."""
    if not is_enabled():
        return args, kwargs
    if name in REFUSED_IN_AUTOCAST:
        raise RuntimeError(f"torch.nn.functional.{name} is unsafe to autocast.")
    if name in LOWER_PRECISION:
        wanted = dtype()
    elif name in FLOAT32:
        wanted = torch.float32
    elif name in WIDEST:
        found = [x.dtype for x in tree_flatten((args, kwargs))[0] if _floats(x)]
        wanted = torch.float32 if torch.float32 in found else dtype()
    else:
        return args, kwargs
    return tree_map(lambda x: _cast(x, wanted), (args, kwargs))


def _floats(x: Any) -> bool:
    # Autocast leaves float64 alone.
    return isinstance(x, Tensor) and x.dtype in (torch.float32, *HALF)


def _cast(x: Any, wanted: torch.dtype) -> Any:
    if not _floats(x) or x.dtype == wanted:
        return x
    if not (x.is_leaf and x.requires_grad and x.dtype == torch.float32):
        return x.to(wanted)
    key = (id(x), wanted)
    if key not in _casts:  # with the parameter, so that its id stays its own
        _casts[key] = x, x.to(wanted)
    return _casts[key][1]
