"""Child processes that run the project's tools, and end together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from records import ROOT

GRACE = 30  # seconds until a child that was asked to end is killed
LOG_LINES = 15


class RunFailed(Exception):
    """A child ended with an error; the message has the last lines of its log."""


class RunBusy(Exception):
    """Another process trains in this folder."""


class Stopped(Exception):
    """The children are being ended."""


def tool_command(tool: str) -> list[str]:
    """The start of a command: `'tools/train.py'` or `'tools/test.py'`. Replaced in tests."""
    return [sys.executable, str(ROOT / tool)]


class Children:
    """Child processes that end when this one is interrupted.

    Args:
        environ: their environment.
        workers: worker processes of each data loader.
    """

    def __init__(self, environ: Mapping[str, str], workers: int = 0) -> None:
        self.environ = environ
        self.workers = workers
        self.stopping = threading.Event()
        self._running: set[subprocess.Popen] = set()
        self._mutex = threading.Lock()

    def call(self, words: Sequence[str | Path], log: Path, lock: int) -> None:
        """Run a command to its end.

        Args:
            words: of the command.
            log: file that its output is appended to.
            lock: descriptor that the child keeps open: the folder stays locked while it runs.

        Raises:
            RunFailed: it ended with an error.
            Stopped: it was ended by :meth:`stop`, or not started since.
        """
        with log.open("a") as output:
            with self._mutex:
                if self.stopping.is_set():
                    raise Stopped
                child = subprocess.Popen(
                    list(map(str, words)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.environ,
                    start_new_session=True,  # Ctrl-C goes to this process, which ends them all
                    pass_fds=(lock,),
                )
                self._running.add(child)
            code = child.wait()
            with self._mutex:
                self._running.discard(child)
        if self.stopping.is_set():
            raise Stopped
        if code:
            tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise RunFailed("\n".join([f"exit status {code}; {log} ends with", *tail]))

    def stop(self) -> None:
        """End all children: by SIGTERM and, after a while, by force."""
        # Not by SIGINT, which the children of a shell's background job ignore.
        with self._mutex:
            self.stopping.set()
            running = list(self._running)
        for child in running:
            _signal(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for child in running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)

    def options(self, *loaders: str) -> list[str]:
        """Options that set the loaders' worker processes."""
        persistent = self.workers > 0
        return [
            "--cfg-options",
            *(f"{loader}.num_workers={self.workers}" for loader in loaders),
            *(f"{loader}.persistent_workers={persistent}" for loader in loaders),
        ]


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
