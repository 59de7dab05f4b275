"""Benchmarking: interleaved timing, profiles, launches, peak memory, and the machine."""

import os
import platform
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# Read at the first profile. Without it the profiler's messages appear between a table's rows.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

# Rows of a profile that belong to the profiler, or to CUDA's runtime and driver. The latter contain
# the time of operators that have rows of their own.
_NOT_OPERATORS = re.compile(
    r"\[.*\]$|ProfilerStep|PyTorch Profiler|Activity Buffer|Buffer Flush|Command Buffer|"
    r"Instrumentation$|Resource$|Lazy Function|Runtime Triggered|Driver Compiler|UVM Activity|"
    r"<?[Uu]n(known|recognized)|cu(da)?[A-Z]"
)
_LAUNCH = re.compile(r"cu(da)?(Launch(Cooperative)?Kernel|GraphLaunch)")
# Without cudaDeviceSynchronize, which the profiler itself calls.
_SYNC = re.compile(r"cu(da)?((Stream|Event)Synchronize|Memcpy(?!.*Async))")


def time_in_turn(
    functions: Sequence[Callable[[], Any]], repeats: int, device: str = "cpu"
) -> list[list[float]]:
    """Time several functions in turn, so that all run under the same load of the machine.

    Every round has another order, since caches and memory depend on what ran before.

    Args:
        functions: without arguments; each is called once to warm up.
        repeats: timed calls of each.
        device: where they run; a GPU is synchronised after each call.

    Returns:
        Seconds per call, one ascending list per function.
    """
    times: list[list[float]] = [[] for _ in functions]
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


def share_of(
    function: Callable[[], Any], parts: Sequence[tuple[object, str]], repeats: int
) -> float:
    """Share of a function's time that is spent in some methods, the median over several calls.

    Args:
        function: without arguments; it is called once to warm up.
        parts: objects and the names of their methods, which must not call each other.
        repeats: timed calls.

    Returns:
        From 0 to 1.
    """
    spent = 0.0

    def timed(method: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
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


def operator_shares(function: Callable[[], Any], device: str = "cpu") -> list[tuple[str, float]]:
    """Share of each of torch's operators, on a GPU of each kernel, in the time of one call.

    Rows of the profiler itself and calls of CUDA's runtime are left out, also of the total.

    Args:
        function: without arguments; it is called once to warm up.
        device: where its tensors are.

    Returns:
        ``(name, share)``, descending in share; shares sum to 1.
    """
    cuda = device.startswith("cuda")
    return shares_of_rows(_profiled(function, cuda), cuda)


def shares_of_rows(rows: Sequence, cuda: bool) -> list[tuple[str, float]]:
    """Shares of a profile's rows in their total time; see :func:`operator_shares`.

    Args:
        rows: a profile's ``key_averages()``.
        cuda: count the time of kernels and copies on the GPU, not that of operators on the CPU.
            Rows of operators and of ranges that a user or the optimizer names are then left out,
            since they repeat the time of their kernels.
    """
    times: Counter[str] = Counter()
    for row in rows:
        named = getattr(row, "is_user_annotation", False)
        on_gpu = row.device_type == DeviceType.CUDA and not named
        if _NOT_OPERATORS.match(row.key) or (cuda and not on_gpu):
            continue
        name = row.key.removeprefix("void ").replace("at::native::", "")
        times[name] += row.self_device_time_total if cuda else row.self_cpu_time_total
    whole = sum(times.values()) or 1.0
    return [(name, time / whole) for name, time in times.most_common()]


def launches_and_syncs(function: Callable[[], Any]) -> tuple[int, int]:
    """Kernel launches and host-device synchronisations of one call on a GPU.

    ``torch.cuda.synchronize`` is not counted.

    Args:
        function: without arguments; it is called once to warm up.
    """
    return count_calls({row.key: row.count for row in _profiled(function, cuda=True)})


def count_calls(calls: dict[str, int]) -> tuple[int, int]:
    """Launches and synchronisations among the calls of CUDA's runtime and driver.

    Args:
        calls: number of calls by name; other names are ignored.
    """

    def count(kind: re.Pattern) -> int:
        return sum(number for name, number in calls.items() if kind.match(name))

    return count(_LAUNCH), count(_SYNC)


def _profiled(function: Callable[[], Any], cuda: bool) -> Sequence:
    """The rows of a profile of the second call."""
    function()
    if cuda:
        torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] * cuda)]) as profiler:
        function()
        if cuda:
            torch.cuda.synchronize()
    return profiler.key_averages()


def median(times: Sequence[float]) -> float:
    """The upper median of an ascending list."""
    return times[len(times) // 2]


def spread(times: Sequence[float]) -> float:
    """Half the interquartile range of an ascending list over its median."""
    quarter = len(times) // 4
    return (times[-1 - quarter] - times[quarter]) / 2 / median(times)


def peak_memory(function: Callable[[], Any], device: str = "cpu") -> int:
    """Peak of the bytes that torch allocated during one call, above those at its start.

    Memory outside torch (NumPy, scikit-learn) is not counted.

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
    for event in sorted(events, key=_start):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _start(event: Any) -> float:
    """When a profiler's event began; torch 2.1 knows microseconds only."""
    return event.start_ns() if hasattr(event, "start_ns") else 1000 * event.start_us()


def machine(device: str = "cpu") -> str:
    """Processor and threads, or GPU, and versions, in one line."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name()
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    """Name of the CPU model."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
