"""What a study's runs need: a training each, shared or resumed, and its tests."""

import argparse
import fcntl
import json
import os
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from children import Children, RunBusy, RunFailed, tool_command
from compose import BACKBONES, Run, config_hash, config_text, root_variable, training_hash
from mmengine.config import Config
from records import code_version

from misalign_det.errors import InputError
from misalign_det.utils.json_file import read_json


@dataclass
class Job:
    """One training, and the tests of its checkpoint.

    Attributes:
        training: the run that is trained.
        tests: the runs that are tested: this one, and those trained as it.
        split: what they are tested on.
        folder: of the training, made by `make_jobs`.
        hashes: of the tests' configs, by method.
    """

    training: Run
    split: str
    folder: Path
    trained_hash: str
    tests: list[Run] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)

    def test_file(self, run: Run, suffix: str) -> Path:
        """A file of a test: `.py` config, `.pkl` detections, `.json` record, `.log`."""
        return self.folder / "tests" / f"{run.method}-{self.split}{suffix}"

    @property
    def trained(self) -> dict[str, Any] | None:
        """The record of the finished training; None if it is not finished."""
        record = _read(self.folder / "trained.json")
        return record if record and (self.folder / record["checkpoint"]).is_file() else None

    def tested(self, run: Run) -> bool:
        """Whether the detections of a run's present config are there."""
        record = _read(self.test_file(run, ".json"))
        if not record or not self.trained or not self.test_file(run, ".pkl").is_file():
            return False
        return record["config"] == self.hashes[run.method]

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return any(self.folder.glob("epoch_*.pth"))


def parse(run: Run, split: str | None) -> Config:
    """A run's config, without a file."""
    return Config.fromstring(config_text(run, split), ".py")


def make_jobs(runs: Sequence[Run], split: str, out_dir: Path) -> list[Job]:
    """One job for each training that the runs need, in their order.

    The folder of a training has the hash of its config in its name: a changed config starts anew,
    and studies that share a run share its training.
    """
    jobs: dict[Run, Job] = {}
    for run in runs:
        root = run.trained_as
        cfg = parse(run, split)
        if root not in jobs:
            # Of the part that training reads, a test's config is the training's.
            own = cfg if run == root else parse(root, split)
            trained_hash = training_hash(own)
            folder = out_dir / root.data / f"{_name(root)}_{trained_hash[:8]}"
            jobs[root] = Job(root, split, folder, trained_hash)
        job = jobs[root]
        if run != root and training_hash(cfg) != job.trained_hash:
            raise ValueError(
                f"methods.py: the options of {run.method} change its training, so it cannot be "
                f"tested with the checkpoint of {root.method}; remove trained_as."
            )
        job.tests.append(run)
        job.hashes[run.method] = config_hash(cfg)
    return list(jobs.values())


def check_data(runs: Iterable[Run], split: str) -> None:
    """Check that the annotations of training and of a split are there, before the work.

    Raises:
        InputError: a file is missing, or is not JSON.
    """
    for data, run in {run.data: run for run in runs}.items():
        cfg = parse(run, split)
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            path = Path(loader.dataset.data_root, loader.dataset.ann_file)
            if not path.is_file():
                raise InputError(
                    f"{data}: there is no annotation file {path}. Set the environment variable "
                    f"{root_variable(data)} to the data set's folder, or make the data set: "
                    "configs/study_data.md has the commands."
                )
            read_json(str(path), data)


def run_again(args: argparse.Namespace, *options: str) -> str:
    """How to make what a folder lacks although there are results, for messages.

    Args:
        args: of the tool that lacks it.
        options: of `run.py` besides.
    """
    words = ["python tools/study/run.py", args.study, *options, "--out-dir", args.out_dir]
    if args.backbone != next(iter(BACKBONES)):
        words += ["--backbone", args.backbone]
    return (
        "run.py does only what has no result, so give it a folder for the results: "
        f"{' '.join(words)} --results-dir work_dirs/my_results; then give this tool both folders"
    )


def work(job: Job, children: Children, facts: dict[str, Any]) -> None:
    """Do what is missing of a job.

    Args:
        job: from `make_jobs`.
        children: starts the processes.
        facts: versions and device, for the record of the training.

    Raises:
        RunBusy, RunFailed, Stopped: see there.
    """
    with _held(job.folder) as lock:
        if not job.trained:
            _train(job, children, facts, lock)
        checkpoint = job.folder / (job.trained or {})["checkpoint"]
        for run in job.tests:
            if job.tested(run):
                continue
            out = job.test_file(run, ".pkl")
            out.parent.mkdir(exist_ok=True)
            write_whole(job.test_file(run, ".py"), config_text(run, job.split))
            out.unlink(missing_ok=True)
            tool = tool_command("tools/test.py")
            words = [*tool, job.test_file(run, ".py"), checkpoint, "--out", out]
            words += ["--work-dir", job.folder / "tests/logs", *children.options("test_dataloader")]
            children.call(words, job.test_file(run, ".log"), lock)
            record = dict(config=job.hashes[run.method], **code_version())
            write_whole(job.test_file(run, ".json"), json.dumps(record))


def _train(job: Job, children: Children, facts: dict[str, Any], lock: int) -> None:
    write_whole(job.folder / "train_config.py", config_text(job.training))
    words = [*tool_command("tools/train.py"), job.folder / "train_config.py"]
    words += ["--work-dir", job.folder, "--resume", "auto"]
    code = code_version()  # of the code that the child imports
    children.call([*words, *children.options("train_dataloader")], job.folder / "train.log", lock)
    checkpoint = job.folder / f"epoch_{job.training.epochs}.pth"
    if not checkpoint.is_file():
        raise RunFailed(f"the training ended without {checkpoint}")
    record = dict(checkpoint=checkpoint.name, train_seconds=training_seconds(job.folder))
    write_whole(job.folder / "trained.json", json.dumps({**record, **code, **facts}, indent=2))


def training_seconds(work_dir: Path) -> float | None:
    """Number of steps times the median time of a step; None without a log.

    Neither the start of a process nor an interruption changes it.
    """
    rows = [
        json.loads(line)
        for path in sorted(work_dir.glob("*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    steps = [row for row in rows if "loss" in row and "time" in row]
    if not steps:
        return None
    return round(max(r["step"] for r in steps) * statistics.median(r["time"] for r in steps), 1)


def work_all(
    jobs: Sequence[Job],
    number: int,
    children: Children,
    facts: dict[str, Any],
    done: Callable[[Job, Exception | None], None],
) -> None:
    """Do all jobs, some at a time; after Ctrl-C all children have ended.

    Args:
        number: of jobs at a time.
        done: called in this thread with each job that ends, and None or its `RunFailed` or
            `RunBusy`.
    """
    with ThreadPoolExecutor(number) as pool:
        futures = {pool.submit(work, job, children, facts): job for job in jobs}
        try:
            while futures:
                # A wait without a limit would not be interrupted by a signal on all systems.
                for future in wait(futures, timeout=1, return_when=FIRST_COMPLETED).done:
                    job, error = futures.pop(future), future.exception()
                    if error and not isinstance(error, (RunFailed, RunBusy)):
                        raise error
                    done(job, error)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """Lock a training's folder, as long as this process or a child of it lives.

    Raises:
        RunBusy: another process, perhaps the child of one that was killed, has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunBusy(f"another process works in {folder}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _name(run: Run) -> str:
    return f"{run.method}_{run.backbone}_{run.epochs}e_seed{run.seed}"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never seen half-written."""
    spare = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    spare.write_text(text)
    spare.replace(path)
