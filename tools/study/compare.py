"""Gains between the methods of a study with their intervals, from the detections that are kept.

    python tools/study/compare.py main --split val

The gain of every method over FCOS, over the method that it adds a part to and, for this package's,
over the best of mmdet's own methods, per data set and on average over all of them. The interval is
a bootstrap over images, the same for all methods, and over the seeds of training, drawn for each
method on its own. The lines are appended to RESULTS_DIR/STUDY.jsonl, where render.py finds them.
Methods whose detections are not in OUT_DIR are left out, with a note; where nothing can be compared
the exit status is 1.
"""

import argparse
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import numpy as np
from compose import BACKBONES, Run
from evaluate import split_of
from grid import STUDIES
from jobs import check_data, make_jobs, run_again
from mmengine.logging import MMLogger
from records import RESULTS, append, read
from tables import Column, Results, digest, groups, references

from misalign_det.apis.cli import errors_in_one_line
from misalign_det.errors import InputError
from misalign_det.evaluation.detections_file import load_detections
from misalign_det.evaluation.paired_bootstrap import ResampledAP, interval, resampled_ap

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


def seed_of(*words: object) -> int:
    """A seed that depends on some words alone."""
    return zlib.crc32(" ".join(map(str, words)).encode())


def resampled(
    results: Results, split: str, out_dir: Path, resamples: int
) -> tuple[dict[tuple[str, Column], ResampledAP], list[Run]]:
    """AP on resamples, of each method in each column whose detections are all there.

    Each training's is kept beside its detections, since it takes seconds.

    Returns:
        AP by method and column; and, of each method and column that is left out, a run whose
        detections are not there or are not those of its result.

    Raises:
        InputError: the annotations that detections are to be compared with are missing.
    """
    jobs = {
        run: job
        for job in make_jobs(
            [run for runs in results.runs.values() for run in runs], split, out_dir
        )
        for run in job.tests
    }
    there, lost = {}, []
    for cell, runs in results.runs.items():
        without = [
            run
            for run in runs
            if not jobs[run].tested(run) or jobs[run].hashes[run.method] != results.config(run)
        ]
        if without:
            lost.append(without[0])
        else:
            there[cell] = [(run, jobs[run].test_file(run, ".pkl")) for run in runs]
    tests = [test for each in there.values() for test in each]
    check_data([run for run, file in tests if _kept(file, resamples) is None], split)
    found: dict[tuple[str, Column], ResampledAP] = {}
    for cell, each in there.items():
        aps = [_of_training(file, resamples, seed_of(run.data)) for run, file in each]
        found[cell] = ResampledAP(
            np.concatenate([one.whole for one in aps]), np.concatenate([one.draws for one in aps])
        )
    return found, lost


def _kept(detections: Path, resamples: int) -> Path | None:
    """The file with a training's AP on resamples; None if it is not there, or older."""
    file = _beside(detections, resamples)
    there = file.is_file() and file.stat().st_mtime > detections.stat().st_mtime
    return file if there else None


def _beside(detections: Path, resamples: int) -> Path:
    return detections.with_suffix(f".{resamples}.npz")


def _of_training(detections: Path, resamples: int, seed: int) -> ResampledAP:
    kept = _kept(detections, resamples)
    if kept:
        with np.load(kept) as file:
            return ResampledAP(file["whole"], file["draws"])
    coco, classes = split_of(detections.with_suffix(".py"))
    found = resampled_ap(coco, [load_detections(detections)], classes, resamples, seed)
    np.savez(_beside(detections, resamples), whole=found.whole, draws=found.draws)
    return found


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
    draws = {
        name: np.mean(
            [aps[name, c].with_seeds(seed_of(name, c.data, c.epochs)) for c in columns], axis=0
        )
        for name in (method, reference)
    }
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
            raise InputError(
                f"{path} has {having} on {args.split}: first run python tools/study/run.py "
                f"{args.study} --split {args.split} --results-dir {args.results_dir}"
            )
        remedy = run_again(args, "--split", args.split)
        aps, lost = resampled(results, args.split, Path(args.out_dir), args.resamples)
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
