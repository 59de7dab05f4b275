"""Plot the loss and AP curves of a training run.

    python tools/analysis/plot_curves.py WORK_DIR --out curves.png

reads mmengine's logs (WORK_DIR/TIMESTAMP/vis_data/scalars.json) and draws the losses over the
training steps, and AP, AP50 and AP75 over the epochs, or over the steps if the run counts steps.
The parts of a resumed run are joined: from the first step of a part on, the entries of earlier
parts are left out. So a run that was restarted from scratch in an old folder is shown alone.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it says what the stack below lacks)

# isort: split
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from misalign_det.analysis.output_files import output_file
from misalign_det.analysis.palette import style
from misalign_det.errors import InputError


class CurvesError(ValueError):
    """There is nothing to plot; the message says which files were searched."""


def read_scalars(work_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """Read the logs of a run.

    Args:
        work_dir: with one folder per start of the run.

    Returns:
        Training entries and evaluation entries, in order. ``'step'`` of a training entry is the
        training step; ``'x'`` of an evaluation entry is the epoch if the training entries have
        epochs, else the training step.

    Raises:
        CurvesError: there is no such folder, no log, or no training line in it.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise CurvesError(f"there is no folder {work_dir}")
    files = sorted(work_dir.glob("*/vis_data/scalars.json")) or sorted(
        work_dir.glob("vis_data/scalars.json")
    )
    if not files:
        raise CurvesError(
            f"{work_dir} has no */vis_data/scalars.json. Is it the --work-dir of a "
            "run that has begun to train?"
        )
    train, evaluation = [], []
    for file in files:
        entries = _entries(file)
        first = next((e["step"] for e in entries if "loss" in e), None)
        if first is None:
            continue
        train = [e for e in train if e["step"] < first]
        evaluation = [e for e in evaluation if e["after"] < first]
        for entry in entries:
            if "loss" in entry:
                train.append(entry)
            elif train and any("mAP" in key for key in entry):
                # A run that counts steps may log its evaluations with step 0 (mmengine's default).
                after = train[-1]["step"]
                x = entry["step"] if "epoch" in train[-1] else max(entry["step"], after)
                evaluation.append({**entry, "after": after, "x": x})
    if not train:
        raise CurvesError(
            f"{files[-1]} has no training losses yet. The first entry comes after "
            "default_hooks.logger.interval steps; make that smaller for short runs."
        )
    return train, evaluation


def _entries(file: Path) -> list[dict]:
    """The entries of one log; incomplete lines are reported and skipped."""
    entries = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        try:
            entry = json.loads(line)
            entry["step"]
        except (ValueError, KeyError, TypeError):
            print(f"skipped line {number} of {file}: not a complete entry", file=sys.stderr)
        else:
            entries.append(entry)
    return entries


def metric_names(evaluation: Sequence[dict]) -> dict[str, str]:
    """The AP values in evaluation entries: labels by key of the log."""
    labels = {
        "bbox_mAP": "AP",
        "bbox_mAP_50": "AP50",
        "bbox_mAP_75": "AP75",
        "mAP": "AP",
        "AP50": "AP50",
        "AP75": "AP75",
    }
    keys = {key for line in evaluation for key in line}
    parts = {key: key.rpartition("/") for key in sorted(keys)}
    named = {key: labels[name] for key, (_, _, name) in parts.items() if name in labels}
    counts = Counter(named.values())
    named = {  # of several evaluators, each label says whose it is
        key: f"{parts[key][0]}: {label}" if counts[label] > 1 and parts[key][0] else label
        for key, label in named.items()
    }
    return named or {key: key for key in sorted(keys) if "mAP" in key}


def plot(train: Sequence[dict], evaluation: Sequence[dict], title: str) -> Figure:
    """Plot the losses on the left, AP on the right.

    Args:
        train, evaluation: from `read_scalars`.
        title: above both.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")  # needs no display
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    # As mmdet sums up every value whose name has "loss" in it: sup_loss_cls, s0.loss_cls.
    names = sorted({k for line in train for k in line if "loss" in k})
    for index, name in enumerate(names):
        points = [(line["step"], line[name]) for line in train if name in line]
        look = {"color": "black", "linewidth": 2, "marker": "."} if name == "loss" else style(index)
        left.plot(
            *zip(*points, strict=True),
            label="total" if name == "loss" else name,
            markevery=max(1, len(points) // 10),
            **look,
        )
    left.set(xlabel="training step", ylabel="loss", title="Training losses", ylim=(0, None))
    left.legend()
    for index, (key, label) in enumerate(metric_names(evaluation).items()):
        points = [(line["x"], line[key]) for line in evaluation if key in line]
        # The last value stands in the legend: beside the curves, values would cover each other.
        right.plot(*zip(*points, strict=True), label=f"{label}, last {points[-1][1]:.3f}",
                   **style(index))  # fmt: skip
    right.set(
        xlabel="epoch" if "epoch" in train[-1] else "training step",
        ylabel="average precision",
        title="Validation",
        ylim=(0, 1),
    )
    if evaluation:
        right.legend()
        right.margins(x=0.1)
        right.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    else:
        right.text(0.5, 0.5, "no evaluation logged yet", ha="center", transform=right.transAxes)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def picture_file(path: str | Path) -> Path:
    """The file that a picture is written to; without an ending it is a PNG file.

    Raises:
        CurvesError: matplotlib writes no such files.
        InputError: nothing can be written there.
    """
    path = Path(path)
    path = path if path.suffix else path.with_name(path.name + ".png")
    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise CurvesError(
            f"--out {path}: {path.suffix} is no kind of picture that can be written. "
            f"Choose one of .{', .'.join(sorted(kinds))}"
        )
    return output_file(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plot the curves; returns the exit status."""
    parser = argparse.ArgumentParser(description="Plot the loss and AP curves of a run")
    parser.add_argument("work_dir", help="the run's --work-dir")
    parser.add_argument("--out", help="picture to write (default: WORK_DIR/curves.png)")
    parser.add_argument("--title", help="default: the work dir's name")
    args = parser.parse_args(arguments)
    try:
        train, evaluation = read_scalars(args.work_dir)
        figure = plot(train, evaluation, args.title or Path(args.work_dir).resolve().name)
        out = picture_file(args.out or Path(args.work_dir, "curves.png"))
        figure.savefig(out, dpi=110)
    except (CurvesError, InputError, OSError) as error:
        print(f"plot_curves.py: error: {error}", file=sys.stderr)
        return 1
    print(f"{len(train)} training and {len(evaluation)} evaluation entries: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
