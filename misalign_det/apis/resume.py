"""The checkpoint from which a run starts: which one it is, and whether it can be used."""

import os
import sys
import zlib
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import all_gather_object

from ..engine.checkpoint import check_training_state, read_checkpoint
from ..engine.hooks.atomic_checkpoint_hook import last_good_checkpoint
from ..engine.named_weights import check_weights, is_local
from ..errors import CheckpointError
from ..utils import walk
from ..utils.processes import is_first_process, machine_count

# Keys of a model whose values are weights to load: of `init_cfg`, older backbones and distillation.
_WEIGHTS = {"checkpoint", "pretrained", "teacher_ckpt"}


def resolve_resume(cfg: Config, resume: str | None = None) -> None:
    """Set ``cfg.load_from`` and ``cfg.resume``, from which training starts.

    Args:
        cfg: changed in place.
        resume: from the command line: a checkpoint; ``''`` for the last one in the work dir, which
            must exist; ``'auto'`` for the last one, or none (training from scratch) where there is
            none. Default: as the config says, where ``resume=True`` without ``load_from`` means
            ``'auto'``.

    Raises:
        CheckpointError: there is nothing to resume.
    """
    if resume is None and cfg.get("resume") and not cfg.get("load_from"):
        resume = "auto"
    if resume is None:
        return
    if resume not in ("", "auto"):
        cfg.resume, cfg.load_from = True, resume
        return
    last = last_good_checkpoint(cfg.work_dir)
    cfg.resume, cfg.load_from = last is not None, last
    if last:
        return
    why = _why_nothing_to_resume(cfg.work_dir)
    saved = sorted(Path(cfg.work_dir).glob("*.pth"), key=lambda path: path.stat().st_mtime)
    if saved:  # training from scratch would overwrite them
        raise CheckpointError(
            f"{why} The newest checkpoint there is {saved[-1]}: continue with "
            f"--resume {saved[-1]}, or start from scratch in another --work-dir."
        )
    if resume == "auto":
        if is_first_process():
            print(f"{why} Training starts from scratch.", file=sys.stderr)
    elif not _agreed(f"{why} Start from scratch? [y/N] ", cfg.launcher):
        raise CheckpointError(
            f"{why} Omit --resume to start from scratch. --resume auto continues where there is a "
            "checkpoint, and starts from scratch where there is none."
        )


def _why_nothing_to_resume(work_dir: str) -> str:
    record = Path(work_dir, "last_checkpoint")
    if not record.is_file():
        return f"there is nothing to resume in {work_dir}: no last_checkpoint."
    return (
        f"there is nothing to resume in {work_dir}: its last_checkpoint names "
        f"{record.read_text().strip() or 'nothing'}, which does not exist."
    )


def _agreed(question: str, launcher: str) -> bool:
    """Ask at a terminal; the answer is no without one, or with several processes."""
    if launcher != "none" or not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def check_pretrained(cfg: Config) -> None:
    """Look for the files, names and packages of the weights that the model starts from.

    Nothing is read or downloaded. To test a checkpoint these weights are not needed.

    Args:
        cfg: whose ``model`` names weights, in ``init_cfg`` and elsewhere.

    Raises:
        CheckpointError: there are no such weights; names the key.
    """
    for key, value in walk({"model": cfg.get("model")}):
        if isinstance(value, str) and key.split(".")[-1] in _WEIGHTS:
            try:
                check_weights(value)
            except CheckpointError as error:
                owner = key.rpartition(".")[0]
                without = f" ({owner}=None trains without)" if owner.endswith(".init_cfg") else ""
                raise CheckpointError(f"{key}: {error}{without}") from error


def preload_checkpoint(cfg: Config) -> None:
    """Read ``cfg.load_from`` before the slow checks, so that its errors are reported first.

    The file is not read again: see :func:`~misalign_det.engine.checkpoint.tensors_only`. A URL is
    read later, when one process can download it for all.

    Args:
        cfg: with ``load_from`` and ``resume``.

    Raises:
        CheckpointError: the file is missing, unsafe, damaged or cannot be resumed from, or there
            are no weights of that name.
    """
    start = cfg.get("load_from")
    if not start:
        return
    check_weights(start)
    if is_local(start):
        checkpoint = read_checkpoint(start)
        if cfg.get("resume"):
            check_training_state(checkpoint, start)


def check_same_start(cfg: Config) -> None:
    """Check that all machines start from the same checkpoint; call it when they are connected.

    The first process alone writes checkpoints, and each reads the file on its own machine.

    Args:
        cfg: with ``load_from`` and ``resume``.

    Raises:
        CheckpointError: they do not; the same message on each.
    """
    if machine_count() == 1:
        return
    machine = int(os.environ.get("GROUP_RANK", os.environ.get("SLURM_NODEID", 0)))
    starts = dict(all_gather_object((machine, _describe_start(cfg))))
    if len(set(starts.values())) > 1:
        each = ", ".join(f"machine {number} {start}" for number, start in sorted(starts.items()))
        raise CheckpointError(
            f"the machines do not start from the same checkpoint: {each}. Only machine 0 writes "
            "checkpoints. Choose a --work-dir on a disk that all machines share, or copy the file "
            "to each of them and continue there with --resume FILE."
        )


def _describe_start(cfg: Config) -> str:
    """What a run starts from; of a file with the checksum of its content."""
    start = cfg.get("load_from")
    if not start:
        return "from scratch"
    does = "resumes" if cfg.get("resume") else "loads"
    if not is_local(start):
        return f"{does} {start}"
    checksum = 0
    with open(os.path.expanduser(start), "rb") as file:
        while block := file.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
    return f"{does} {Path(start).name} (checksum {checksum:08x})"
