"""What tools/train.py and tools/test.py share: arguments, config, runner."""

import argparse
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from mmdet.registry import RUNNERS
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from ..engine.checkpoint import check_training_state, is_local, read_checkpoint
from ..engine.distributed import prepare_processes
from ..engine.hooks.atomic_checkpoint_hook import last_good_checkpoint
from ..errors import CheckpointError, ConfigError, InputError
from ..utils.processes import is_first_process
from .config_lookup import find_config
from .config_options import merge_options
from .error_reporting import config_in_use, errors_in_one_line
from .model_check import check_model

__all__ = [
    "add_common_arguments",
    "add_preflight_argument",
    "build_runner",
    "errors_in_one_line",
    "load_config",
    "pair_detectors",
    "prepare_work_dir",
    "preload_checkpoint",
    "resolve_resume",
]


class Options(DictAction):
    """mmengine's `DictAction`, whose errors are errors of the command line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        for value in values or ():
            key, equals, _ = value.partition("=")
            if not key or not equals:
                parser.error(
                    f"{option_string}: {value!r} is no KEY=VALUE. What does not belong to "
                    f"{option_string} stands before it."
                )
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f"{option_string}: {error}")


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both tools take, under the names of mmdet 3.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        "--work-dir",
        help="folder for logs, checkpoints and figures "
        "(default: the config's work_dir, else work_dirs/CONFIG_NAME)",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=Options,
        metavar="KEY=VALUE",
        help="change the config: train_dataloader.batch_size=4, lists as 'key=[a,b]' or key=a,b. "
        "data_root=FOLDER moves all paths of the dataset",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started the processes (see tools/dist_*.sh and tools/slurm_*.sh)",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors; loading one runs any code it holds",
    )
    # torch.distributed.launch passes one or the other spelling, depending on torch's version.
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch"
    )


def add_preflight_argument(parser: argparse.ArgumentParser) -> None:
    """Add --no-preflight, which `load_config` puts into the config.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        "--no-preflight",
        action="store_true",
        help="do not look at annotation files and images before the start "
        "(preflight=dict(enabled=False) in a config)",
    )


def pair_detectors(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Set ``args.pairs``, (config, checkpoint) of each of ``args.detectors``, and ``args.names``.

    Args:
        parser: says what is wrong.
        args: with `detectors`, alternately, and `names` (default: the
            configs' names).
    """
    if len(args.detectors) % 2:
        parser.error("give CONFIG CHECKPOINT for each detector: the number of arguments is odd")
    args.pairs = list(zip(args.detectors[::2], args.detectors[1::2]))
    args.names = args.names or [Path(config).stem for config, _ in args.pairs]
    if len(args.names) != len(args.pairs):
        parser.error(f"--names: {len(args.names)} names for {len(args.pairs)} detectors")


def load_config(args: argparse.Namespace) -> Config:
    """The config that the arguments ask for, ready for `build_runner`.

    Args:
        args: with `config` and what `add_common_arguments` adds; with
            `no_preflight` where the tool takes it.

    Returns:
        Options merged; `work_dir`, `launcher` and `experiment_name` set.

    Raises:
        ConfigNotFoundError: there is no such config.
        ConfigError: the config cannot be read.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    path, options, name = find_config(args.config)
    cfg = _read_config(path)
    cfg.merge_from_dict(dict(options))
    cfg = merge_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir or not cfg.get("work_dir"):
        cfg.work_dir = args.work_dir or str(Path("work_dirs", name))
    if not cfg.get("experiment_name"):
        cfg.experiment_name = name
    if getattr(args, "no_preflight", False):
        cfg.preflight = {**(cfg.get("preflight") or {}), "enabled": False}
    # mmengine saves the merged config in the work dir under the name of the config file. With the
    # work dir inside the repository onedl-mim would then find two configs of that name.
    object.__setattr__(cfg, "_filename", str(Path(path).with_name("config.py")))
    config_in_use.set(cfg)
    return cfg


def _read_config(path: str) -> Config:
    """A config is a program of the user's: what it raises is said with the line at fault.

    An error inside a module that it imports or calls passes: its author needs the traceback.
    """
    try:
        return Config.fromfile(path)
    except Exception as error:
        frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        # The file and those it is based on, in the order in which mmengine reads them.
        read = [str(frame.f_locals.get("filename")) for frame, _ in frames]
        read = [name for name in read if name.endswith((".py", ".yml", ".yaml", ".json"))] or [path]
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if isinstance(error, SyntaxError):  # it names the line, and the file only sometimes
            raise ConfigError(f"the config {read[-1]} has a syntax error: {text}") from error
        last = frames[-1][0].f_code.co_filename
        if last not in read and "mmengine" not in Path(last).parts:
            raise
        lines = [f", line {line}" for frame, line in frames if frame.f_code.co_filename in read]
        place = "" if read[-1] == path and not lines else f" ({read[-1]}{''.join(lines[-1:])})"
        raise ConfigError(f"the config {path} cannot be read{place}: {text}") from error


def prepare_work_dir(cfg: Config) -> None:
    """Make the work dir, and see whether files can be written there.

    Args:
        cfg: with `work_dir`.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=cfg.work_dir):
            pass
    except OSError as error:
        raise InputError(
            f"nothing can be written to the work dir {cfg.work_dir}: "
            f"{error.strerror}. Choose another one with --work-dir."
        ) from error


def resolve_resume(cfg: Config, resume: str | None = None) -> None:
    """Decide what training starts from: `cfg.load_from` and `cfg.resume`.

    Args:
        cfg: changed in place.
        resume: of the command line: a checkpoint; '' for the last one in the work
            dir, which has to be there; 'auto' for the last one, or from scratch where there is
            none. Default: as the config says, whose `resume=True` without `load_from` is 'auto'.

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
    if saved:  # to start from scratch would overwrite them
        raise CheckpointError(
            f"{why} The newest checkpoint there is {saved[-1]}: go on with "
            f"--resume {saved[-1]}, or start from scratch in another --work-dir."
        )
    if resume == "auto":
        if is_first_process():
            print(f"{why} Training starts from scratch.", file=sys.stderr)
    elif not _agreed(f"{why} Start from scratch? [y/N] ", cfg.launcher):
        raise CheckpointError(
            f"{why} Leave --resume out to start from scratch. For a command that "
            "is to do either, --resume auto goes on where there is a checkpoint "
            "and starts from scratch where there is none."
        )


def _why_nothing_to_resume(work_dir: str) -> str:
    record = Path(work_dir, "last_checkpoint")
    if not record.is_file():
        return f"there is nothing to resume in {work_dir}: no last_checkpoint."
    return (
        f"there is nothing to resume in {work_dir}: its last_checkpoint names "
        f"{record.read_text().strip() or 'nothing'}, which is not there."
    )


def _agreed(question: str, launcher: str) -> bool:
    """Ask at a terminal; without one, or with several processes, the answer is no."""
    if launcher != "none" or not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def preload_checkpoint(cfg: Config) -> None:
    """Read `cfg.load_from` before anything that takes long; mmengine takes what was read.

    A URL waits until the processes are prepared, so that one of them downloads for all.

    Args:
        cfg: with `load_from` and `resume`.

    Raises:
        CheckpointError: the file is missing, unsafe, damaged or cannot be resumed from.
    """
    start = cfg.get("load_from")
    if start and is_local(start):
        checkpoint = read_checkpoint(start)
        if cfg.get("resume"):
            check_training_state(checkpoint, start)


def build_runner(cfg: Config) -> Runner:
    """The runner of a config, several processes prepared.

    Args:
        cfg: from `load_config`.

    Returns:
        Its model is built, but not loaded.

    Raises:
        InputError: head, assigner and loss of the model do not fit together.
    """
    check_model(cfg.get("model") or {})
    prepare_processes(cfg)
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
