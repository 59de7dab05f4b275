"""Kernel launches and synchronisations of a benchmark's functions, on a real or simulated GPU.

Without a GPU, the same work is built again on the simulated CUDA device (``simulated_cuda``). The
last line of each table says which one it was.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from torch.utils import _python_dispatch

from misalign_det.utils.benchmark import launches_and_syncs

if not torch.cuda.is_available():  # before the first import of triton: its kernels run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

HEADER = f"{'launches':>9} {'syncs':>6}"
Functions = dict[str, Callable]


@dataclass(frozen=True)
class Cost:
    """Launches and host-device synchronisations of one call; None if not counted."""

    launches: int | None = None
    syncs: int | None = None

    def __str__(self) -> str:
        """The two columns under :data:`HEADER`."""
        launches, syncs = ("-" if n is None else n for n in (self.launches, self.syncs))
        return f"{launches:>9} {syncs:>6}"

    def over(self, other: "Cost") -> str:
        """Ratio of launches, or a dash."""
        return f"{self.launches / other.launches:.2f}" if self.launches and other.launches else "-"


def can_count() -> bool:
    """Whether there is a GPU, or what the simulated one needs of torch: 2.2."""
    return torch.cuda.is_available() or hasattr(_python_dispatch, "return_and_correct_aliasing")


def add_no_counts(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--no-counts``."""
    parser.add_argument(
        "--no-counts", action="store_true", help="do not count launches and synchronisations"
    )


def count_calls(
    make: Callable[[str], Functions],
    device: str = "cpu",
    functions: Functions | None = None,
    warm_up: bool = True,
) -> dict[str, Cost]:
    """Cost of one call of each function.

    Args:
        make: takes a device such as ``"cuda"`` and returns functions without arguments, by name.
        device: of ``functions``.
        functions: returned by ``make(device)``; on a GPU they are used instead of new ones.
        warm_up: whether each function is called once before, on the simulated device as on a GPU;
            for functions that keep something for the next call.
    """
    if not can_count():
        return {name: Cost() for name in functions or make("cpu")}
    if not torch.cuda.is_available():
        return _simulated(make, warm_up)
    if functions is None or not device.startswith("cuda"):
        functions = make("cuda")
    return {name: Cost(*launches_and_syncs(function)) for name, function in functions.items()}


def _simulated(make: Callable, warm_up: bool) -> dict[str, Cost]:
    from simulated_cuda import SimulatedCuda

    costs = {}
    with SimulatedCuda() as device:
        for name, function in make("cuda").items():
            if warm_up:
                function()
            with device.count() as counts:
                function()
            costs[name] = Cost(counts.num_launches, counts.num_syncs)
    return costs


def footnote(counted: bool = True, simulated_on: str = "") -> str:
    """Last line of a table: where its launches and syncs were counted.

    Args:
        counted: whether they were counted.
        simulated_on: the simulated device's inputs, if they are not those that were timed.
    """
    if not counted:
        return "launches, syncs: not counted"
    if not can_count():
        return "launches, syncs: not counted, which without a GPU takes torch 2.2"
    if torch.cuda.is_available():
        place = f"{torch.cuda.get_device_name()}, by torch's profiler"
    else:
        place = "the simulated CUDA device, one launch an operator"
        place += simulated_on and f"; {simulated_on}"
    return f"launches, syncs: of one call on {place}"
