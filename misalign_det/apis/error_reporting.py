"""End a tool with one line and an exit status where the user's input is at fault."""

import atexit
import errno
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mmengine.config import Config

from ..datasets.image_checks import explain_load_error
from ..engine.downloads import explain_download
from ..engine.hooks.atomic_checkpoint_hook import is_full_disk, last_good_checkpoint
from ..engine.named_weights import torchvision_installation
from ..errors import (
    CheckpointError,
    CheckpointSaveError,
    ConfigError,
    ConfigNotFoundError,
    InputError,
    NonFiniteLossError,
)
from ..utils import walk
from .build_errors import explain_build_error
from .console import leave_out_notices

_USER_ERRORS = (
    CheckpointError,
    CheckpointSaveError,
    ConfigError,
    ConfigNotFoundError,
    InputError,
    NonFiniteLossError,
)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

config_in_use: ContextVar[Config | None] = ContextVar(
    "the config that a tool has loaded", default=None
)


@contextmanager
def errors_in_one_line(tool: str, resumable: bool = False) -> Iterator[None]:
    """Exit with status 1 and the message alone where the user's input is at fault.

    Notices of libraries are left out of what the tool prints, see
    :func:`~misalign_det.apis.console.leave_out_notices`. After Ctrl-C the exit status is 130.
    Errors of the program itself keep their traceback; the environment variable
    ``MISALIGN_DET_TRACEBACK=1`` keeps it for all others, too.

    Args:
        tool: name before the message.
        resumable: whether ``--resume`` continues from the last checkpoint in the work dir.

    Example::

        with errors_in_one_line('my_tool.py'):
            cfg = load_config(args)
    """
    token = config_in_use.set(None)
    leave_out_notices()
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{tool}: interrupted.{_way_on() if resumable else ''}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        text = _explain(error, resumable)
        if text is None or os.environ.get("MISALIGN_DET_TRACEBACK", "0") != "0":
            raise
        _tell_torchrun(f"{tool}: error: {text}")
        atexit.register(_end_mim)  # runs after Python has printed the message
        sys.exit(f"{tool}: error: {text}")
    finally:
        config_in_use.reset(token)


def _explain(error: Exception, resumable: bool) -> str | None:
    """The message for the user; None for an error of the program."""
    if isinstance(error, _USER_ERRORS):
        return str(error)
    if isinstance(error, OSError) and is_full_disk(error):
        # In a log or a figure; `AtomicCheckpointHook` reports it for a checkpoint.
        place = f" while writing {error.filename}" if error.filename else ""
        if not resumable:
            return f"the disk is full{place}. Free some space, then run the command again."
        return (
            f"the disk is full{place}. Earlier checkpoints are complete; "
            "WORK_DIR/last_checkpoint names the last one. Free some space, then continue with "
            "--resume."
        )
    if isinstance(error, OSError) and error.errno in _DENIED and error.filename:
        return (
            f"{error.filename}: {error.strerror}. Check the permissions of the file and its "
            "folder, or choose another folder (--work-dir for logs and checkpoints)."
        )
    cfg = config_in_use.get()
    text = explain_download(error)
    if text:
        return text + _without_weights(cfg)
    return _unfit_torchvision(error) or explain_load_error(error) or explain_build_error(error, cfg)


def _without_weights(cfg: Config | None) -> str:
    """The option that trains without the pretrained weights that are downloaded."""
    for key, value in walk({"model": (cfg or {}).get("model")}):
        if key.endswith(".init_cfg.checkpoint") and "://" in str(value):
            return f" Or train without them: --cfg-options {key.removesuffix('.checkpoint')}=None"
    return ""


def _unfit_torchvision(error: Exception) -> str | None:
    """mmengine imports an installed torchvision when it describes the environment."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    imported = any(
        frame.f_globals.get("__name__") == "torchvision" and frame.f_code.co_name == "<module>"
        for frame in frames
    )
    if not imported:
        return None
    reason = " ".join(str(error).split())
    return (
        f"the installed torchvision is not one for this torch: it cannot be imported ({reason}). "
        f"Nothing here needs it: pip uninstall torchvision. Or {torchvision_installation()}."
    )


def _way_on() -> str:
    cfg = config_in_use.get()
    last = last_good_checkpoint(cfg.work_dir) if cfg and cfg.get("work_dir") else None
    if last:
        return f" --resume continues from {last}."
    return " No checkpoint had been saved yet."


def _tell_torchrun(message: str) -> None:
    """Put the message into torchrun's summary, which otherwise reports none."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    # The format of torch's ErrorHandler, whose own method writes a traceback instead.
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    try:
        Path(path).write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
    except OSError:
        pass


def _end_mim() -> None:
    """End `mim train` and `mim test` as Ctrl-C does, with "Aborted!" and exit status 1.

    They run the tool by `subprocess.check_call`, and would print the traceback of their
    CalledProcessError after the message.
    """
    parent = os.getppid()
    try:
        command = Path(f"/proc/{parent}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return
    if _is_mim(command):
        os.kill(parent, signal.SIGINT)


def _is_mim(command: Sequence[str]) -> bool:
    """Whether a command line is `mim train|test` or `python -m mim train|test`.

    Args:
        command: its words, the interpreter first.
    """
    words = command[2:] if command[1:2] == ["-m"] else command[1:]
    return len(words) > 1 and Path(words[0]).name == "mim" and words[1] in ("train", "test")
