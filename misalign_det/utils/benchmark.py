"""What the benchmarks share: peers in turn, profiles, peak memory, and the machine in a line."""

import os
import platform
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# Read at the first profile: the profiler's messages would stand between a table's rows.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

# Rows of a profile that are the profiler's own, or those of CUDA's runtime and driver: the host
# waits in them for the operators that have rows of their own.
_NOT_OPERATORS = re.compile(
    r"\[.*\]$|ProfilerStep|PyTorch Profiler|Activity Buffer|Buffer Flush|Command Buffer|"
    r"Instrumentation$|Resource$|Lazy Function|Runtime Triggered|Driver Compiler|UVM Activity|"
    r"<?[Uu]n(known|recognized)|cu(da)?[A-Z]"
)
_LAUNCH = re.compile(r"cu(da)?(Launch(Cooperative)?Kernel|GraphLaunch)")
# The profiler itself calls cudaDeviceSynchronize.
_WAIT = re.compile(r"cu(da)?((Stream|Event)Synchronize|Memcpy(?!.*Async))")


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
    """Torch's operators, on a GPU its kernels, and their shares of one call's time.

    The profiler's own lines and calls of CUDA's runtime belong neither to them nor to the whole.

    Args:
        function: without arguments; one call warms up.
        device: where its tensors are.

    Returns:
        Names and shares, the largest first.
    """
    cuda = device.startswith("cuda")
    return shares_of_rows(_profiled(function, cuda), cuda)


def shares_of_rows(rows: Sequence, cuda: bool) -> list[tuple[str, float]]:
    """See :func:`operator_shares`.

    Args:
        rows: what a profile's ``key_averages()`` returns.
        cuda: whether the time of kernels and copies on the GPU counts, or that of operators on the
            CPU. With a GPU an operator's row repeats its kernels' time, as do ranges that a user
            or the optimizer names.
    """
    times = Counter()
    for row in rows:
        named = getattr(row, "is_user_annotation", False)
        on_gpu = row.device_type == DeviceType.CUDA and not named
        if _NOT_OPERATORS.match(row.key) or (cuda and not on_gpu):
            continue
        name = row.key.removeprefix("void ").replace("at::native::", "")
        times[name] += row.self_device_time_total if cuda else row.self_cpu_time_total
    whole = sum(times.values()) or 1.0
    return [(name, time / whole) for name, time in times.most_common()]


def launches_and_waits(function: Callable) -> tuple[int, int]:
    """Kernel launches of one call on a GPU, and how many times the host waited for it.

    A wait for the whole device (``torch.cuda.synchronize``) is not counted.

    Args:
        function: without arguments; one call warms up.
    """
    return tally({row.key: row.count for row in _profiled(function, cuda=True)})


def tally(calls: dict[str, int]) -> tuple[int, int]:
    """Launches and waits among the calls of CUDA's runtime and driver.

    Args:
        calls: number of calls by name; what is no such call is passed over.
    """
    return tuple(
        sum(number for name, number in calls.items() if kind.match(name))
        for kind in (_LAUNCH, _WAIT)
    )


def _profiled(function: Callable, cuda: bool) -> Sequence:
    """The second call's profile, row by row."""
    function()
    if cuda:
        torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] * cuda)]) as profiler:
        function()
        if cuda:
            torch.cuda.synchronize()
    return profiler.key_averages()


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
