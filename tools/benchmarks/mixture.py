"""Compare the time of the batched mixture with scikit-learn's, object by object.

    python tools/benchmarks/mixture.py
    python tools/benchmarks/mixture.py --device cuda

also prints whether their labels agree. scikit-learn's GaussianMixture starts from the same values.
On a GPU with Triton, the batched fit is one Triton kernel. Launches and synchronisations include
the threshold after the fit. Without a GPU they are counted on the simulated device, which is slow,
for at most 8 objects.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from launch_counts import HEADER, Cost, add_no_counts, count_calls, footnote

from misalign_det.apis.cli import add_renamed_option
from misalign_det.models.task_modules.assigners.gaussian_mixture import (
    fit_mixture,
    positive_threshold,
)
from misalign_det.utils.benchmark import machine, median, spread, time_in_turn

SIMULATED = 8  # objects at most on the simulated device


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Time the mixture")
    parser.add_argument("--num-objects", type=int, nargs="+", default=[1, 7, 50, 200, 500])
    parser.add_argument("--num-candidates", type=int, default=35, help="per object (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    add_no_counts(parser)
    add_renamed_option(parser, "--gts", "--num-objects")
    add_renamed_option(parser, "--candidates", "--num-candidates")
    return parser.parse_args(arguments)


def losses_of(num_gts: int, candidates: int, seed: int = 0) -> torch.Tensor:
    """Joint losses of two groups of candidates, in ascending order, (G, K)."""
    generator = torch.Generator().manual_seed(seed)
    low = 0.4 + 0.15 * torch.randn(num_gts, candidates, generator=generator)
    high = 1.2 + 0.3 * torch.randn(num_gts, candidates, generator=generator)
    share = torch.rand(num_gts, 1, generator=generator)
    mixed = torch.where(torch.rand(num_gts, candidates, generator=generator) < share, low, high)
    return mixed.abs().sort(dim=1).values


def fit(losses: torch.Tensor, backend: str) -> torch.Tensor:
    """Largest loss of a positive, per object."""
    valid = torch.ones_like(losses, dtype=torch.bool)
    return positive_threshold(losses, fit_mixture(losses, valid, 1.0, backend), "component")


def batched(losses: torch.Tensor, device: str) -> dict[str, Callable]:
    """The batched fit on a device, by its name."""
    return {"batched": partial(fit, losses.to(device), "batched")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per number of objects."""
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(machine(args.device))
    print(
        f"{'objects':>8} {'batched':>12} {'spread':>7} {HEADER} {'scikit-learn':>14} "
        f"{'times faster':>13} {'equal labels':>13}"
    )
    for num in args.num_objects:
        losses = losses_of(num, args.num_candidates).to(args.device)
        functions = batched(losses, args.device)
        functions["scikit-learn"] = partial(fit, losses, "sklearn")
        ours, theirs = time_in_turn(functions.values(), args.repeats, args.device)
        labels = [losses <= function()[:, None] for function in functions.values()]
        equal = (labels[0] == labels[1]).float().mean().item()
        cost = Cost()
        if not args.no_counts:
            counted = losses if torch.cuda.is_available() else losses[:SIMULATED]
            cost = count_calls(partial(batched, counted))["batched"]
        print(
            f"{num:>8} {1e3 * median(ours):>9.2f} ms {100 * spread(ours):>5.0f} % {cost} "
            f"{1e3 * median(theirs):>11.2f} ms {median(theirs) / median(ours):>13.1f} "
            f"{100 * equal:>11.2f} %",
            flush=True,
        )
    print(footnote(not args.no_counts, f"at most {SIMULATED} objects"))


if __name__ == "__main__":
    main()
