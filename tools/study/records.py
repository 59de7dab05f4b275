"""Result lines: one JSON object a line, appended whole, and what they say about a run."""

import fcntl
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from misalign_det.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")
# What tells one result, or one comparison, from another; a later line replaces an earlier one.
KEYS = ("kind", "method", "reference", "data", "backbone", "epochs", "length", "split", "seed")

# Trainings made again on another device, whose first result a study has.
REPEATS = "repeats.jsonl"


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold a file that other processes that use this function then wait for.

    Yields:
        The descriptor; the file is made if there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def append(path: Path, *lines: Mapping[str, Any]) -> None:
    """Append lines, whole or not at all for a reader, also with several writers.

    Args:
        path: made if there is none. A last line that was cut off is ended first.
        lines: dicts that JSON can hold.
    """
    text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    with locked(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text
        while text:
            text = text[os.write(descriptor, text) :]
        os.fsync(descriptor)


def read(path: Path, keys: Sequence[str] = KEYS) -> list[dict[str, Any]]:
    """The lines of a file, the last of each run or comparison; none if there is no file.

    A last line that was cut off while it was written is left out.

    Args:
        path: of the file.
        keys: what tells one line from another.

    Raises:
        InputError: another line is not JSON.
    """
    if not path.is_file():
        return []
    found: dict[tuple, dict[str, Any]] = {}
    rows = path.read_text().splitlines()
    for number, row in enumerate(rows, 1):
        try:
            line = json.loads(row) if row.strip() else None
        except ValueError as error:
            if row.endswith("}"):
                raise InputError(f"{path.name}, line {number}, is not JSON: {error}") from error
            continue
        if line is not None:
            found[tuple(str(line.get(key)) for key in keys)] = line
    return list(found.values())


def code_version() -> dict[str, Any]:
    """Commit of the code, and whether files that results depend on differ from it.

    Without git, the commit is the environment variable MISALIGN_DET_COMMIT, and `dirty` None.
    """

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    parts = ("misalign_det", "configs", "tools", ":!tools/study/results", ":!*.md", ":!*.svg")
    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return dict(commit=os.environ.get("MISALIGN_DET_COMMIT"), dirty=None)
    return dict(commit=commit, dirty=bool(git("status", "--porcelain", "--", *parts)))


def software() -> dict[str, str]:
    """Versions of what a training depends on."""
    import mmcv
    import mmdet
    import mmengine
    import torch

    import misalign_det

    modules = dict(torch=torch, mmcv=mmcv, mmengine=mmengine, mmdet=mmdet)
    versions = {name: str(module.__version__) for name, module in modules.items()}
    return dict(python=platform.python_version(), **versions, misalign_det=misalign_det.__version__)


def device_name(device: str) -> str:
    """The model of a device: 'NVIDIA H100 80GB HBM3', or the processor's."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
