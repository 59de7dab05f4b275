"""What the benchmarks share: peers in turn, peak memory, and the machine in a line."""

import platform
import random
import time
from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile


def time_in_turn(
    functions: Sequence[Callable], repeats: int, device: str = "cpu"
) -> list[list[float]]:
    """Seconds of each call, the functions taken in turn so that all meet the same machine.

    Every round has another order: what ran before leaves its traces in caches and memory.

    Args:
        functions: without arguments; one call each warms up.
        repeats: timed calls of each.
        device: a GPU is waited for after each call.

    Returns:
        One list a function, ascending.
    """
    times = [[] for _ in functions]
    turns = list(zip(functions, times))
    shuffle = random.Random(0).shuffle
    for _ in range(repeats + 1):
        shuffle(turns)
        for function, taken in turns:
            start = time.perf_counter()
            function()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [sorted(taken[1:]) for taken in times]


def share_of(function: Callable, parts: Sequence[tuple[object, str]], repeats: int) -> float:
    """Share of a call's time that is spent in some methods, the median of several calls.

    Args:
        function: without arguments.
        parts: objects and the names of their methods; one must not call another.
        repeats: timed calls; one more warms up.
    """
    spent = 0.0

    def timed(method):
        def call(*args, **kwargs):
            nonlocal spent
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                spent += time.perf_counter() - start

        return call

    shares = []
    for owner, name in parts:
        setattr(owner, name, timed(getattr(owner, name)))
    try:
        for _ in range(repeats + 1):
            spent, start = 0.0, time.perf_counter()
            function()
            shares.append(spent / (time.perf_counter() - start))
    finally:
        for owner, name in parts:
            delattr(owner, name)
    return median(sorted(shares[1:]))


def operator_shares(function: Callable, device: str = "cpu") -> list[tuple[str, float]]:
    """Torch's operators and their shares of one call's time, the largest first.

    Args:
        function: without arguments; one call warms up.
        device: on a GPU the kernels' time counts.
    """
    function()
    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] * cuda)]
    with profile(activities=activities) as profiler:
        function()
    where = "self_device_time_total" if cuda else "self_cpu_time_total"
    times = {event.key: getattr(event, where) for event in profiler.key_averages()}
    whole = sum(times.values())
    return sorted(((key, time / whole) for key, time in times.items()), key=lambda row: -row[1])


def median(times: Sequence[float]) -> float:
    """Of an ascending list."""
    return times[len(times) // 2]


def spread(times: Sequence[float]) -> float:
    """Half the distance of the quartiles, in medians: 0.05 reads as 5 %."""
    quarter = len(times) // 4
    return (times[-1 - quarter] - times[quarter]) / 2 / median(times)


def peak_memory(function: Callable, device: str = "cpu") -> int:
    """Largest number of bytes that torch held at once during one call, over those at its start.

    Memory outside torch (NumPy, scikit-learn) is not seen.

    Args:
        function: without arguments.
        device: where its tensors are.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    held = peak = 0
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def machine(device: str = "cpu") -> str:
    """Processor or GPU, cores, versions."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name()
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
