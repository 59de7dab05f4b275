"""The plot of a study's gains."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods import METHODS, REFERENCE
from tables import Column, Results, groups

# Okabe and Ito's palette; each colour with a marker of its own.
STYLES = [
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v")),
    *(("#56B4E9", "P"), ("#000000", "X"), ("#8C8C8C", "*")),
]


def gains(results: Results) -> list[tuple[str, list[tuple[int, float, float, float]]]]:
    """Each method's points over `REFERENCE`: index of the group, gain, low and high in AP."""
    found = []
    for method in results.methods:
        if METHODS[method].trained_as in results.methods:  # its gain is that over the trained one
            continue
        lines = [results.comparison(method, REFERENCE, group) for group in groups(results)]
        points = [
            (i, *(round(100 * line[key], 3) for key in ("gain", "low", "high")))
            for i, line in enumerate(lines)
            if line
        ]
        if points:
            found.append((method, points))
    return found


def digest_of(path: Path) -> str | None:
    """The hash of what a plot shows, which is written into it; None without one."""
    found = re.search(r"gains ([0-9a-f]{12})", path.read_text()) if path.is_file() else None
    return found[1] if found else None


def plot_digest(results: Results) -> str:
    """The hash of what `plot` would show."""
    shown = (_names(results), gains(results))
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:12]


def _names(results: Results) -> list[str]:
    def name(group: Sequence[Column]) -> str:
        length = f"\n{group[0].length:g}x" if len(results.lengths) > 1 else ""
        return (group[0].data if len(group) == 1 else "all") + length

    return [name(group) for group in groups(results)]


def plot(results: Results, path: Path) -> None:
    """Draw the gains over `REFERENCE` with their intervals.

    Args:
        results: with comparisons; see `gains`.
        path: SVG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    methods, names = gains(results), _names(results)
    settings: dict[str, Any] = {"svg.hashsalt": "study", "svg.fonttype": "none"}
    with plt.rc_context(settings):
        figure, axes = plt.subplots(figsize=(2.5 + 1.6 * len(names), 4), layout="constrained")
        width = 0.8 / len(methods)
        for number, (method, points) in enumerate(methods):
            colour, marker = STYLES[number % len(STYLES)]
            place, value, low, high = (list(part) for part in zip(*points))
            axes.errorbar(
                [x - 0.4 + (number + 0.5) * width for x in place],
                value,
                # The gain on the split itself may lie outside the interval of the resamples.
                yerr=[
                    [max(0.0, v - end) for v, end in zip(value, low)],
                    [max(0.0, end - v) for v, end in zip(value, high)],
                ],
                fmt=marker,
                color=colour,
                capsize=3,
                label=method,
                fillstyle="full" if number < len(STYLES) else "none",
            )
        axes.axhline(0, color="0.4", linewidth=1)
        for edge in range(1, len(names)):
            axes.axvline(edge - 0.5, color="0.85", linewidth=1)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel(f"gain over {REFERENCE}, AP on {results.split}")
        figure.legend(loc="outside right upper", frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        note = {"Date": None, "Description": f"gains {plot_digest(results)}"}
        figure.savefig(path, metadata=note)
        plt.close(figure)
