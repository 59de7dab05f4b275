"""The checkpoint from which a run starts: which one it is, and whether it can be used."""

import ast
import inspect
import logging
import os
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import OPTIMIZERS
from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.logging import print_log

from ..engine.checkpoint import check_training_state, read_checkpoint
from ..engine.hooks.atomic_checkpoint_hook import last_good_checkpoint
from ..engine.hooks.record_invalid_loss_hook import is_record
from ..engine.named_weights import check_weights, is_local
from ..errors import CheckpointError, InputError
from ..utils import find_type, walk
from ..utils.processes import is_first_process, machine_count
from ..utils.text import shorten

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
    newest = _newest_checkpoint(cfg.work_dir)
    if newest:  # training from scratch would overwrite it
        how = (
            f"start from its weights with --cfg-options load_from={newest} and without --resume"
            if _is_best(newest)
            else f"continue with --resume {newest}"
        )
        raise CheckpointError(
            f"{why} The newest checkpoint there is {newest}: {how}, or start from scratch in "
            "another --work-dir."
        )
    if resume == "auto":
        if is_first_process():
            print(f"{why} Training starts from scratch.", file=sys.stderr)
    elif not _agreed(f"{why} Start from scratch? [y/N] ", cfg.launcher):
        raise CheckpointError(
            f"{why} Omit --resume to start from scratch. --resume auto continues where there is a "
            "checkpoint, and starts from scratch where there is none."
        )


def _newest_checkpoint(work_dir: str) -> Path | None:
    """One that can be resumed from, if there is one; no step that a hook recorded."""
    saved = [path for path in Path(work_dir).glob("*.pth") if not is_record(path)]
    return max(saved, key=lambda path: (not _is_best(path), path.stat().st_mtime), default=None)


def _is_best(path: Path) -> bool:
    """Whether mmengine saved it as the best one: without the optimizer's state."""
    return path.name.startswith("best_")


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
        InputError: it is resumed from with another optimizer: see :func:`check_optimizer`.
    """
    start = cfg.get("load_from")
    if not start:
        return
    check_weights(start)
    if is_local(start):
        checkpoint = read_checkpoint(start)
        if cfg.get("resume"):
            check_training_state(checkpoint, start, schedules=bool(cfg.get("param_scheduler")))
            check_optimizer(cfg, checkpoint, start)


def check_optimizer(cfg: Config, checkpoint: Mapping, filename: str) -> None:
    """Refuse to resume with other settings of the optimizer, which mmengine would ignore.

    It loads the settings with the optimizer's state, and so keeps the checkpoint's; those of the
    schedules, too, about which a warning is logged. Nothing is compared with a checkpoint that
    does not hold its config. The learning rates that ``--auto-scale-lr`` makes are compared later,
    by :class:`~misalign_det.apis.console.ConciseRunner`.

    Args:
        cfg: with ``optim_wrapper`` and ``param_scheduler``.
        checkpoint: from which is resumed. The text of its config is parsed, not run.
        filename: of the checkpoint, for the message.

    Raises:
        InputError: type or settings of the optimizer differ; names the values of both.
    """
    saved = _parse_config((checkpoint.get("meta") or {}).get("cfg"))
    if not isinstance(saved.get("optim_wrapper"), Mapping) or not cfg.get("optim_wrapper"):
        return
    parts = {key: cfg[key] for key in ("optim_wrapper", "param_scheduler") if key in cfg}
    given = _in_plain_form(parts)
    instead = (
        "or train from the weights alone: --cfg-options load_from=FILE instead of --resume FILE."
    )
    kind, its_kind = (_optimizer_type(config) for config in (given, saved))
    if kind != its_kind:
        raise InputError(
            f"{filename} holds the state of {_name(its_kind)}, which {_name(kind)}, the config's "
            f"optim_wrapper.optimizer.type, cannot continue. Resume with {_name(its_kind)}, "
            f"{instead}"
        )
    differ = _differences(_optimizer_settings(given, kind), _optimizer_settings(saved, kind))
    if differ:
        raise InputError(
            f"resuming from {filename} keeps its optimizer's settings, and the config has others: "
            f"{shorten(differ)}. Give those of the checkpoint, {instead}"
        )
    differ = _differences(*(_leaves(config, "param_scheduler") for config in (given, saved)))
    if differ and is_first_process():
        note = (
            f"resuming from {filename} keeps its schedules, and the config has others, which "
            f"change nothing: {shorten(differ)}. With new ones, {instead.removeprefix('or ')}"
        )
        print_log(note, logger="current", level=logging.WARNING)


def _parse_config(text: Any) -> dict[str, Any]:
    """The variables of a config's text: parsed, not run. Empty if it is no such text."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, TypeError, ValueError, RecursionError):
        return {}
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    return {getattr(node.targets[0], "id", ""): _plain(node.value) for node in assigned}


def _in_plain_form(value: Any) -> Any:
    """A part of a config as :func:`_plain` gives it: lists also for tuples, names for classes."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {key: _in_plain_form(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_plain_form(part) for part in value]
    return value


def _plain(node: ast.expr) -> Any:
    """The value of a literal or of a call of ``dict``; the text of any other expression."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict":
        return {key.arg: _plain(key.value) for key in node.keywords}
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {k.value: _plain(v) for k, v in zip(node.keys, node.values)}  # type: ignore
    if isinstance(node, (ast.List, ast.Tuple)):  # which an option of the command line may replace
        return [_plain(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _optimizer_type(config: Mapping) -> Any:
    optimizer = config["optim_wrapper"].get("optimizer")
    name = optimizer.get("type") if isinstance(optimizer, Mapping) else None
    return find_type(name, OPTIMIZERS) or name


def _optimizer_settings(config: Mapping, kind: Any) -> dict[str, Any]:
    """What a checkpoint's state replaces, by dotted key, with defaults."""
    wrapper, head = config["optim_wrapper"], "optim_wrapper"
    found = {}
    for part in ("optimizer", "paramwise_cfg"):
        found.update(_leaves(wrapper, part, f"{head}."))
    found.pop(f"{head}.optimizer.type", None)
    taken = inspect.signature(kind).parameters if callable(kind) else {}
    for name, parameter in taken.items():
        default = parameter.default
        if default is not None and default is not parameter.empty:
            default = list(default) if isinstance(default, tuple) else default
            found.setdefault(f"{head}.optimizer.{name}", default)
    return found


def _leaves(config: Mapping, part: str, head: str = "") -> dict[str, Any]:
    """The values of a part of a config by dotted key, lists of numbers and names as a whole."""
    inner = {f"{head}{part}": config.get(part), **dict(walk(config.get(part), f"{head}{part}."))}
    whole = [key for key, value in inner.items() if isinstance(value, list)
             and not any(isinstance(item, Mapping) for item in value)]  # fmt: skip
    return {
        key: value
        for key, value in inner.items()
        if not any(key.startswith(f"{outer}.") for outer in whole)
        and value is not None
        and not key.endswith("._scope_")
        and (key in whole or not isinstance(value, (Mapping, list)))
    }


def _differences(given: Mapping, saved: Mapping) -> list[str]:
    return [
        f"{key} is {given.get(key, 'not set')} in the config, {saved.get(key, 'not set')} in the "
        "checkpoint"
        for key in {**given, **saved}
        if given.get(key) != saved.get(key)
    ]


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


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
