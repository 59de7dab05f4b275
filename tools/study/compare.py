"""Gains between the methods of a study with their intervals, from the detections that are kept.

    python tools/study/compare.py main --split val

The gain of every method over FCOS, over the method that it adds a part to and, for this package's,
over the best of mmdet's own methods, per data set and on average over all of them. The interval is
a bootstrap over images, the same for all methods, and over the seeds of training, drawn for each
method on its own. The lines are appended to RESULTS_DIR/STUDY.jsonl, where render.py finds them. AP
of each training on the resamples is kept in RESULTS_DIR/resamples.jsonl; what is not there yet is
computed from the detections in OUT_DIR. Methods that have neither are left out, with a note; where
nothing can be compared the exit status is 1.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import numpy as np
from compose import BACKBONES, Run
from grid import STUDIES
from jobs import make_jobs, run_again
from mmengine.logging import MMLogger
from records import RESULTS, append, read
from resamples import Resamples, seed_of
from tables import Column, Results, digest, groups, references

from misalign_det.apis.cli import errors_in_one_line
from misalign_det.errors import InputError
from misalign_det.evaluation.paired_bootstrap import ResampledAP, interval

CONFIDENCE = 0.95


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Gains between methods, with intervals")
    parser.add_argument("study", choices=list(STUDIES), help="declared in tools/study/grid.py")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="effnet-lite0")
    parser.add_argument("--resamples", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument(
        "--out-dir", default="work_dirs/study", help="checkpoints and detections (%(default)s)"
    )
    parser.add_argument(
        "--results-dir", default=str(RESULTS), help="result lines (default: tools/study/results)"
    )
    args = parser.parse_args(arguments)
    if args.resamples < 1:
        parser.error("--resamples must be at least 1")
    return args


def resampled(
    results: Results, resamples: Resamples, out_dir: Path
) -> tuple[dict[tuple[str, Column], ResampledAP], list[Run]]:
    """AP on resamples, of each method in each column where all its runs have it.

    Returns:
        AP by method and column; and, of each method and column that is left out, a run without a
        line in the file whose detections are not there or are not those of its result.

    Raises:
        InputError: the annotations that detections are to be compared with are missing.
    """
    runs = [run for runs in results.runs.values() for run in runs]
    jobs = {run: job for job in make_jobs(runs, results.split, out_dir) for run in job.tests}
    tests = [
        (run, jobs[run])
        for run in runs
        if not resamples.has(run)
        and jobs[run].tested(run)
        and jobs[run].hashes[run.method] == results.config(run)
    ]
    resamples.add(tests)
    found, lost = {}, []
    for cell, runs in results.runs.items():
        without = [run for run in runs if not resamples.has(run)]
        if without:
            lost.append(without[0])
            continue
        aps = [resamples.of(run) for run in runs]
        found[cell] = ResampledAP(
            np.concatenate([one.whole for one in aps]), np.concatenate([one.draws for one in aps])
        )
    return found, lost


def pairs(results: Results) -> list[tuple[str, str, list[Column]]]:
    """What can be compared: method, reference and columns, of a data set and of all.

    Both have a result in each of the columns.
    """
    return [
        (method, reference, group)
        for group in groups(results)
        for method, reference in references(results, group)
        if all((name, column) in results.runs for name in (method, reference) for column in group)
    ]


def comparisons(
    results: Results, aps: Mapping[tuple[str, Column], ResampledAP]
) -> Iterator[dict[str, Any]]:
    """The lines of a study, per data set and, where all data sets are there, for their mean.

    Args:
        results: of the study and split.
        aps: by method and column.
    """
    for method, reference, group in pairs(results):
        if all((name, column) in aps for name in (method, reference) for column in group):
            yield _comparison(results, aps, method, reference, group)


def _comparison(
    results: Results,
    aps: Mapping[tuple[str, Column], ResampledAP],
    method: str,
    reference: str,
    columns: Sequence[Column],
) -> dict[str, Any]:
    draws = {}
    for name in (method, reference):
        each = []
        for column in columns:
            # Methods that share their trainings have the same seeds of training in a resample.
            trained = results.runs[name, column][0].trained_as.method
            seed = seed_of(trained, column.data, column.epochs)
            each.append(aps[name, column].with_seeds(seed))
        draws[name] = np.mean(each, axis=0)
    low, high = interval(draws[method] - draws[reference], CONFIDENCE)
    means = {name: np.mean([aps[name, c].mean for c in columns]) for name in (method, reference)}
    single = len(columns) == 1
    return dict(
        kind="comparison",
        method=method,
        reference=reference,
        data=columns[0].data if single else "all",
        backbone=results.backbone,
        epochs=columns[0].epochs if single else None,
        length=columns[0].length,
        split=results.split,
        gain=round(float(means[method] - means[reference]), 5),
        low=round(low, 5),
        high=round(high, 5),
        confidence=CONFIDENCE,
        resamples=len(draws[method]),
        of=digest(results, (method, reference), columns),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and append the lines."""
    args = parse_args(arguments)
    MMLogger.get_current_instance().setLevel("WARNING")  # or each config names its data's root
    with errors_in_one_line("compare.py"):
        path = Path(args.results_dir) / f"{args.study}.jsonl"
        results = Results(read(path), STUDIES[args.study], args.split, args.backbone)
        wanted = len(pairs(results))
        if not wanted:
            methods = ", ".join(results.methods)
            having = f"results of {methods} alone" if methods else "no result"
            folders = f"--out-dir {args.out_dir} --results-dir {args.results_dir}"
            raise InputError(
                f"{path} has {having} on {args.split}: first run python tools/study/run.py "
                f"{args.study} --split {args.split} --backbone {args.backbone} {folders}"
            )
        remedy = run_again(args, "--split", args.split)
        resamples = Resamples(Path(args.results_dir), results, args.resamples)
        aps, lost = resampled(results, resamples, Path(args.out_dir))
        lines = list(comparisons(results, aps))
        if not lines:
            raise InputError(
                f"nothing was compared: {args.out_dir} lacks the detections of the results in "
                f"{path}, such as those of {lost[0]} on {args.split}; {remedy}"
            )
        append(path, *lines)
        for line in lines:
            gain, low, high = (100 * line[key] for key in ("gain", "low", "high"))
            print(
                f"{line['data']} {line['epochs'] or ''} {line['method']} over {line['reference']}: "
                f"{gain:+.1f} ({low:+.1f} to {high:+.1f})"
            )
        if lost:
            for run in lost:
                print(f"left out, without the detections of its result: {run}", file=sys.stderr)
            print(
                f"{len(lines)} of {wanted} pairs were compared. For the others: {remedy}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
