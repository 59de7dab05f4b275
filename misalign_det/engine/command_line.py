"""What tools/train.py and tools/test.py share: arguments, config, runner, errors in one line."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path

from mmdet.registry import RUNNERS
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from .annotation_checks import InputError
from .checkpoint_io import CheckpointError
from .config_lookup import ConfigNotFoundError, resolve_config
from .data_root import merge_options
from .distributed import prepare_processes
from .finite_loss import NonFiniteLossError
from .safe_checkpoint import CheckpointSaveError, is_full_disk

_USER_ERRORS = (
    CheckpointError,
    CheckpointSaveError,
    ConfigNotFoundError,
    InputError,
    NonFiniteLossError,
)


def add_common_arguments(parser):
    """Add what both tools take, under the names of mmdet 3.

    Args:
        parser (argparse.ArgumentParser): changed in place.
    """
    parser.add_argument("--work-dir", help="folder for logs, checkpoints and figures "
                        "(default: the config's work_dir, else work_dirs/CONFIG_NAME)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE",
        help="change the config: train_dataloader.batch_size=4, lists as 'key=[a,b]' or key=a,b. "
        "data_root=FOLDER moves all paths of the data set")
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none",
        help="what started the processes (see tools/dist_*.sh and tools/slurm_*.sh)")
    parser.add_argument(
        "--trust-checkpoint", action="store_true",
        help="load checkpoints that hold more than tensors; loading one runs any code it holds")
    # torch.distributed.launch passes one or the other spelling, depending on torch's version.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0,
                        help="set by torch.distributed.launch")


def pair_detectors(parser, args):
    """Set ``args.pairs``, (config, checkpoint) of each of ``args.detectors``, and ``args.names``.

    Args:
        parser (argparse.ArgumentParser): says what is wrong.
        args (argparse.Namespace): with `detectors`, alternately, and `names` (default: the
            configs' names).
    """
    if len(args.detectors) % 2:
        parser.error("give CONFIG CHECKPOINT for each detector: the number of arguments is odd")
    args.pairs = list(zip(args.detectors[::2], args.detectors[1::2]))
    args.names = args.names or [Path(config).stem for config, _ in args.pairs]
    if len(args.names) != len(args.pairs):
        parser.error(f"--names: {len(args.names)} names for {len(args.pairs)} detectors")


def load_config(args):
    """The config that the arguments ask for, ready for `build_runner`.

    Args:
        args (argparse.Namespace): with `config` and what `add_common_arguments` adds.

    Returns:
        mmengine.Config: options merged; `work_dir`, `launcher` and `experiment_name` set.

    Raises:
        ConfigNotFoundError: there is no such config.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    path = resolve_config(args.config)
    cfg = merge_options(Config.fromfile(path), args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir or not cfg.get("work_dir"):
        cfg.work_dir = args.work_dir or str(Path("work_dirs", Path(path).stem))
    if not cfg.get("experiment_name"):
        cfg.experiment_name = Path(path).stem
    # mmengine saves the merged config in the work dir under the name of the config file. With the
    # work dir inside the repository onedl-mim would then find two configs of that name.
    object.__setattr__(cfg, "_filename", str(Path(path).with_name("config.py")))
    return cfg


def build_runner(cfg):
    """The runner of a config, several processes prepared.

    Args:
        cfg (mmengine.Config): from `load_config`.

    Returns:
        mmengine.runner.Runner: its model is built, but not loaded.
    """
    prepare_processes(cfg)
    return RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)


@contextmanager
def errors_in_one_line(tool):
    """End with the message alone, exit status 1, where the user's input is at fault.

    Args:
        tool (str): name put before the message.
    """
    try:
        yield
    except _USER_ERRORS as error:
        sys.exit(f"{tool}: error: {error}")
    except OSError as error:  # a log or a figure, where `SafeCheckpointHook` cannot say it
        if not is_full_disk(error):
            raise
        place = f" while writing {error.filename}" if error.filename else ""
        sys.exit(f"{tool}: error: the disk is full{place}. Checkpoints saved before are whole; "
                 "WORK_DIR/last_checkpoint names the last one. Free some space, then go on with "
                 "--resume.")
