"""Command lines of the tools: common arguments, loading of the config, the runner."""

import argparse
import os
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..engine.distributed import collect_between_machines, prepare_processes
from ..errors import ConfigError, InputError
from ..utils.old_names import RenamedWarning
from ..utils.processes import is_first_process
from .config_lookup import find_config
from .config_options import fit_workers, merge_options, parse_option
from .console import ConciseRunner
from .error_reporting import config_in_use, errors_in_one_line
from .input_size import describe_input_size
from .model_check import check_model

__all__ = [
    "add_renamed_option",
    "add_common_arguments",
    "add_preflight_argument",
    "build_runner",
    "errors_in_one_line",
    "load_config",
    "pair_detectors",
    "prepare_work_dir",
]


class Options(argparse.Action):
    """mmengine's ``DictAction`` with error messages that name the option, and paths as given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the options as a dict, or exit with a message."""
        options = dict(getattr(namespace, self.dest, None) or {})
        for value in values or ():
            key, equals, text = value.partition("=")
            if not key or not equals:
                parser.error(
                    f"{option_string}: {value!r} is not KEY=VALUE. Put arguments that do not "
                    f"belong to {option_string} before it."
                )
            try:
                options[key] = parse_option(key, text)
            except ValueError as error:
                parser.error(f"{option_string} {key}: {error}.")
        setattr(namespace, self.dest, options)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every tool that loads a config, under the names of mmdet 3.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        "--work-dir",
        help="folder for logs, checkpoints and figures "
        "(default: the config's work_dir, else work_dirs/CONFIG_NAME)",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="use the images of this folder, in COCO, Pascal VOC, YOLO or Roboflow layout, in "
        "place of the config's data set; classes, num_classes and paths are filled in",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=Options,
        metavar="KEY=VALUE",
        help="change the config: train_dataloader.batch_size=4, lists as 'key=[a,b]' or key=a,b, "
        "a path as it is ('work_dir=my runs'). data_root=FOLDER moves all paths of the datasets",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what starts the processes (see tools/dist_*.sh and tools/slurm_*.sh)",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that contain more than tensors; loading one runs any code in it",
    )
    # torch.distributed.launch passes either spelling, depending on torch's version.
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch"
    )


def add_preflight_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-preflight``, which :func:`load_config` puts into the config.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        "--no-preflight",
        action="store_true",
        help="do not check annotation files and images before the start "
        "(preflight=dict(enabled=False) in a config)",
    )


def add_renamed_option(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Let an option also be given by its old name, which ``--help`` does not list.

    The old name warns with :class:`~misalign_det.utils.old_names.RenamedWarning`.

    Args:
        parser: changed in place.
        old: such as ``'--show-dir'``.
        new: name of an option that the parser has.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> action = parser.add_argument('--out-dir')
        >>> add_renamed_option(parser, '--show-dir', '--out-dir')
        >>> parser.parse_args(['--show-dir', 'pictures']).out_dir  # with a RenamedWarning
        'pictures'
    """
    action = parser._option_string_actions[new]

    class OldName(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: Any,
            option_string: str | None = None,
        ) -> None:
            message = f"{parser.prog}: {old} is now called {new}."
            warnings.warn(message, RenamedWarning, stacklevel=2)
            action.required = False  # argparse checks it after all arguments
            action(parser, namespace, values, new)

    parser.add_argument(
        old,
        action=OldName,
        dest=action.dest,
        nargs=action.nargs,
        type=action.type or str,
        choices=action.choices,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def pair_detectors(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Set ``args.pairs``, (config, checkpoint) of each detector, and default ``args.names``.

    Args:
        parser: reports an odd number of arguments, or another number of names than of detectors.
        args: with ``detectors``, configs and checkpoints in turn, and ``names`` (default: the
            configs' file names).
    """
    if len(args.detectors) % 2:
        parser.error("give CONFIG CHECKPOINT for each detector: the number of arguments is odd")
    args.pairs = list(zip(args.detectors[::2], args.detectors[1::2]))
    args.names = args.names or [Path(config).stem for config, _ in args.pairs]
    if len(args.names) != len(args.pairs):
        parser.error(f"--names: {len(args.names)} names for {len(args.pairs)} detectors")


def load_config(args: argparse.Namespace, training: bool = False) -> Config:
    """Load the config of a tool's arguments, ready for :func:`build_runner`.

    Args:
        args: with ``config`` and the arguments of :func:`add_common_arguments`, of
            :func:`add_preflight_argument` where the tool has it, and ``checkpoint`` where it has
            one, whose classes ``--data`` takes.
        training: whether ``--data`` needs training images.

    Returns:
        The config with the options merged, and ``work_dir``, ``launcher`` and ``experiment_name``.

    Raises:
        ConfigNotFoundError: there is no such config.
        ConfigError: the config cannot be read.
        InputError: an option changes nothing; see
            :func:`~misalign_det.apis.config_options.merge_options`. Or the folder of ``--data``
            cannot be used.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if "launcher" in (args.cfg_options or {}):
        raise InputError(
            "--cfg-options launcher: it has no effect. Give --launcher "
            f"{args.cfg_options['launcher']}."
        )
    path, options, name = find_config(args.config)
    cfg = _read_config(path)
    cfg.merge_from_dict(dict(options))
    given = args.work_dir or (args.cfg_options or {}).get("work_dir")
    cfg.work_dir = given or cfg.get("work_dir") or str(Path("work_dirs", name))
    data = getattr(args, "data", None)
    if data == "":  # of an unset variable
        raise InputError("--data is empty: give it the folder of the images and annotations.")
    if data:
        _use_data(cfg, args, training)
    cfg = merge_options(cfg, args.cfg_options)
    fit_workers(cfg)
    if data and is_first_process():
        note = describe_input_size(cfg, ("train", "val", "test") if training else ("val", "test"))
        if note:
            print_log(note, logger="current")
    cfg.work_dir = given or cfg.work_dir
    cfg.launcher = args.launcher
    if not cfg.get("experiment_name"):
        cfg.experiment_name = name
    if getattr(args, "no_preflight", False):
        cfg.preflight = {**(cfg.get("preflight") or {}), "enabled": False}
    # mmengine saves the merged config in the work dir under the name of the config file. With the
    # work dir inside the repository, onedl-mim would then find two configs of that name.
    object.__setattr__(cfg, "_filename", str(Path(path).with_name("config.py")))
    config_in_use.set(cfg)
    return cfg


def _use_data(cfg: Config, args: argparse.Namespace, training: bool) -> None:
    from ..engine.checkpoint import read_checkpoint  # here, since these imports take a second
    from .class_names import saved_classes
    from .own_data import use_data

    checkpoint = getattr(args, "checkpoint", None)
    classes = None
    if checkpoint:
        classes = saved_classes(read_checkpoint(checkpoint, args.trust_checkpoint)) or None
    use_data(cfg, args.data, args.cfg_options, classes, training)


def _read_config(path: str) -> Config:
    """Read a config file; an error in it is reported with the line at fault.

    A config is a program. Errors inside a module that it imports or calls are passed on, since the
    author of that module needs the traceback.
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
    """Make the work dir, and check that files can be written there.

    Args:
        cfg: with ``work_dir``.

    Raises:
        InputError: it cannot be made, or not be written to.
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


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config, also for several processes without a GPU, or several machines.

    Args:
        cfg: from :func:`load_config`.

    Returns:
        The runner. Its model is built, but no checkpoint is loaded.

    Raises:
        InputError: head, assigner and loss of the model do not fit together.
    """
    check_model(cfg.get("model") or {})
    collect_between_machines(cfg)
    prepare_processes(cfg)
    return RUNNERS.build(cfg) if "runner_type" in cfg else ConciseRunner.from_cfg(cfg)
