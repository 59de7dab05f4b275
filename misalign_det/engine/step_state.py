"""What a training step depends on besides weights and batch: kept, and restored to run it again."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from mmengine.logging import MessageHub

_COUNTERS = ("iter", "max_iters", "epoch", "max_epochs")  # of mmengine's RuntimeInfoHook


def random_states() -> dict[str, Any]:
    """States of the generators of torch, NumPy and Python, and of the GPU where one is in use."""
    numpy_state: Any = np.random.get_state()
    kind, keys, *rest = numpy_state
    state = random.getstate()
    states = dict(
        torch=torch.get_rng_state(),
        numpy=(kind, keys.tolist(), *rest),
        python=(state[0], list(state[1]), state[2]),
    )
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any], device: str = "cpu") -> None:
    """Set the generators.

    Args:
        states: from :func:`random_states`.
        device: where the step runs. If it is a GPU, its generator is set too.
    """
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    if "cuda" in states and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def autocast_dtype(device: str) -> str | None:
    """The type in which autocast computes on a kind of device now: "float16"; None without it.

    Args:
        device: "cpu", "cuda" ...
    """
    if hasattr(torch, "get_autocast_dtype"):
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    elif device == "cpu":  # before torch 2.4
        enabled, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    else:
        enabled, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    return str(dtype).removeprefix("torch.") if enabled else None


def autocast(device: str, dtype: str | None) -> AbstractContextManager:
    """Autocast as :func:`autocast_dtype` found it.

    Args:
        device: where the step runs: "cpu", "cuda:0" ...
        dtype: from :func:`autocast_dtype`.
    """
    if dtype is None:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))


def training_counters() -> dict[str, int]:
    """Counters of the running training, which assigners and heads read; empty outside a runner."""
    hub = MessageHub.get_current_instance()
    found = {name: hub.get_info(name, None) for name in _COUNTERS}
    return {name: int(value) for name, value in found.items() if value is not None}


@contextmanager
def at_counters(counters: dict[str, int]) -> Iterator[None]:
    """Within the block the training is where it was.

    Args:
        counters: from :func:`training_counters`.
    """
    before = training_counters()
    _set(counters)
    try:
        yield
    finally:
        _set(before)


def _set(counters: dict[str, int]) -> None:
    hub = MessageHub.get_current_instance()
    for name in _COUNTERS:
        if name in counters:
            hub.update_info(name, counters[name])
        elif hub.get_info(name, None) is not None:
            hub.pop_info(name)
