"""Train and test a study: what is missing of its grid, several runs at a time.

    python tools/study/run.py main --list
    python tools/study/run.py main --methods fcos atss --data bccd --seeds 0 1 2
    python tools/study/run.py main --split test --jobs 14 --device cuda:0

Studies are declared in grid.py. Each run is a child process of tools/train.py and tools/test.py.
Finished runs are skipped and interrupted ones resumed; Ctrl-C ends all children and loses at most
the epochs since the last checkpoint. A run that fails does not stop the others: its log's last
lines are printed and kept in OUT_DIR/failures.jsonl, the exit status is 1, and it is tried again
next time. A result is one line in RESULTS_DIR/STUDY.jsonl; checkpoints and detections stay in
OUT_DIR.
"""

import argparse
import datetime
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from children import Children, RunBusy
from compose import BACKBONES, Run, check_bases, model_base, runs_of
from evaluate import figures, parameters
from grid import DATA, STUDIES
from jobs import Job, check_data, make_jobs, work_all
from methods import METHODS
from mmengine.logging import MMLogger
from records import RESULTS, append, device_name, read, software

from misalign_det.apis.cli import errors_in_one_line


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train and test what is missing of a study")
    parser.add_argument("study", choices=list(STUDIES), help="declared in tools/study/grid.py")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="(default: all)")
    parser.add_argument("--data", nargs="+", choices=list(DATA), help="(default: the study's)")
    parser.add_argument("--seeds", nargs="+", type=int, help="any numbers (default: the study's)")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="effnet-lite0")
    parser.add_argument(
        "--jobs",
        type=int,
        help="runs at a time, which share the cores or the GPU (default: 1 on a GPU, else one per "
        "core, at most 2)",
    )
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--out-dir", default="work_dirs/study", help="checkpoints and detections (%(default)s)"
    )
    parser.add_argument(
        "--results-dir", default=str(RESULTS), help="result lines (default: tools/study/results)"
    )
    parser.add_argument("--list", action="store_true", help="print the state of the runs only")
    args = parser.parse_args(arguments)
    others = sorted(set(args.methods or ()) - set(STUDIES[args.study].methods))
    if others:
        known = ", ".join(STUDIES[args.study].methods)
        parser.error(f"--methods: {args.study} has no {', '.join(others)}; it has {known}")
    if args.jobs is not None and args.jobs < 1:
        parser.error("--jobs must be at least 1")
    return args


def chosen_runs(args: argparse.Namespace) -> list[Run]:
    """The runs of the command line."""
    study = STUDIES[args.study]
    seeds = study.seeds if args.seeds is None else tuple(args.seeds)
    study = type(study)(
        study.name,
        tuple(m for m in study.methods if not args.methods or m in args.methods),
        tuple(args.data or study.data),
        seeds,
        study.lengths,
    )
    return runs_of(study, args.backbone)


def results_of(path: Path, split: str) -> dict[Run, dict[str, Any]]:
    """The result lines of a study's file, by run."""
    return {
        Run(r["method"], r["data"], r["seed"], r["epochs"], r["backbone"]): r
        for r in read(path)
        if r["kind"] == "result" and r["split"] == split
    }


def missing_tests(jobs: Sequence[Job], results: dict[Run, dict[str, Any]]) -> list[Job]:
    """The jobs with a test whose present config has no result, each with these tests alone."""
    for job in jobs:
        job.tests = [
            run for run in job.tests if results.get(run, {}).get("config") != job.hashes[run.method]
        ]
    return [job for job in jobs if job.tests]


def print_state(runs: Sequence[Run], args: argparse.Namespace, path: Path) -> None:
    """One line per run, done or what is missing, and the counts."""
    results, counts = results_of(path, args.split), {}
    there = [run for run in runs if model_base(METHODS[run.method], run.backbone).is_file()]
    jobs = make_jobs(there, args.split, Path(args.out_dir))
    of_run = {run: job for job in jobs for run in job.tests}
    for run in runs:
        job = of_run.get(run)
        if job is None:
            state = f"no model base {model_base(METHODS[run.method], run.backbone).name}"
        elif results.get(run, {}).get("config") == job.hashes[run.method]:
            state = f"done, AP {100 * results[run]['AP']:.1f}"
        elif run in results:
            state = "config changed since its result"
        else:
            state = "trained" if job.trained else "interrupted" if job.started else "missing"
        kind = state.partition(",")[0].partition(" base")[0]
        counts[kind] = counts.get(kind, 0) + 1
        print(f"{run}: {state}")
    print(f"{len(runs)} runs: {', '.join(f'{n} {kind}' for kind, n in counts.items())}")


def result_line(run: Run, job: Job) -> dict[str, Any]:
    """What is kept of a tested run."""
    trained = dict(job.trained or {})
    trained.pop("checkpoint")
    config = job.test_file(run, ".py")
    return dict(
        kind="result",
        **asdict(run),
        split=job.split,
        **figures(config, job.test_file(run, ".pkl")),
        parameters=parameters(config),
        config=job.hashes[run.method],
        **trained,
        date=datetime.date.today().isoformat(),
    )


def environment(device: str, jobs: int, cores: int) -> dict[str, str]:
    """The environment of the children: their share of the cores, and their device."""
    threads = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs))),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    visible = [v for v in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if v]
    index = torch.device(device).index or 0
    chosen = "" if device == "cpu" else visible[index] if visible else str(index)
    return {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": chosen}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing."""
    args = parse_args(arguments)
    MMLogger.get_current_instance().setLevel("WARNING")  # or each config names its data's root
    with errors_in_one_line("run.py"):
        runs, path = chosen_runs(args), Path(args.results_dir) / f"{args.study}.jsonl"
        if args.list:
            print_state(runs, args, path)
            return
        check_bases(list(dict.fromkeys(run.method for run in runs)), args.backbone)
        jobs = make_jobs(runs, args.split, Path(args.out_dir))
        jobs = missing_tests(jobs, results_of(path, args.split))
        if not jobs:
            print(f"all {len(runs)} runs have a result in {path}")
            return
        check_data([job.training for job in jobs], args.split)
        sys.exit(run_jobs(jobs, args, path))


def run_jobs(jobs: Sequence[Job], args: argparse.Namespace, path: Path) -> int:
    """Train, test and record; the exit status, 1 where a run failed."""
    cores = len(os.sched_getaffinity(0))
    number = args.jobs or (min(2, cores) if args.device == "cpu" else 1)
    workers = 0 if args.device == "cpu" else min(2, cores // number)
    children = Children(environment(args.device, number, cores), workers)
    facts = dict(versions=software(), device=device_name(args.device), jobs=number)
    ended, failed = 0, 0

    def done(job: Job, error: Exception | None) -> None:
        nonlocal ended, failed
        ended += 1
        head = f"[{ended}/{len(jobs)}] {job.training}"
        try:
            lines = [] if error else [result_line(run, job) for run in job.tests]
        except Exception as unreadable:  # one run's detections; the others go on
            error = unreadable
        if isinstance(error, RunBusy):
            print(f"{head}: left out, {error}", flush=True)
        elif error:
            failed += 1
            print(f"{head} failed: {error}", file=sys.stderr, flush=True)
            record = dict(run=str(job.training), split=args.split, error=str(error))
            append(Path(args.out_dir) / "failures.jsonl", record)
        else:
            for line in lines:
                append(path, line)
                print(f"{head}: {line['method']} AP {100 * line['AP']:.1f}", flush=True)

    print(f"{len(jobs)} trainings and their tests, {number} at a time", flush=True)
    # Closing the terminal, or a time limit, ends the children as Ctrl-C does.
    for number_of in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number_of, signal.default_int_handler)
    work_all(jobs, number, children, facts, done)
    if failed:
        print(f"{failed} of {len(jobs)} failed; run the command again to try them again.")
    return int(failed > 0)


if __name__ == "__main__":
    main()
