"""Train a detector, with the command line of mmdet 3.

    python tools/train.py CONFIG
    python tools/train.py CONFIG --data FOLDER
    python tools/train.py CONFIG --amp --work-dir work_dirs/mine --cfg-options randomness.seed=0

CONFIG is a file, or the name of a config of this package.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
import torch
from mmdet.utils import setup_cache_size_limit_of_dynamo

from misalign_det.apis.cli import (
    add_common_arguments,
    add_preflight_argument,
    build_runner,
    errors_in_one_line,
    load_config,
    prepare_work_dir,
)
from misalign_det.apis.config_types import check_types
from misalign_det.apis.resume import (
    check_optimizer,
    check_pretrained,
    check_same_start,
    preload_checkpoint,
    resolve_resume,
)
from misalign_det.apis.training_safeguards import add_safeguards
from misalign_det.datasets.preflight import check_config
from misalign_det.engine.checkpoint import check_checkpoint, read_checkpoint, tensors_only
from misalign_det.engine.distributed import finish_processes
from misalign_det.engine.named_weights import is_local
from misalign_det.errors import InputError


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    No help text may contain the name of mim's option for the number of processes: mim searches the
    help for it, and would pass it on.
    """
    parser = argparse.ArgumentParser(description="Train a detector")
    parser.add_argument("config", help="config file, or name of a config of this package")
    add_common_arguments(parser)
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: float16 with loss scaling on CUDA, bfloat16 without",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="multiply the learning rate by the total batch size / auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="CHECKPOINT",
        help="continue from this checkpoint, or without a value from the last one in the work dir. "
        "If there is none, the tool asks at a terminal, and ends with an error elsewhere; "
        "'--resume auto' starts from scratch, unless other checkpoints would be overwritten",
    )
    add_preflight_argument(parser)
    return parser.parse_args(arguments)


def apply_training_options(cfg: Config, args: argparse.Namespace) -> None:
    """Apply ``--amp`` and ``--auto-scale-lr`` to the config.

    Args:
        cfg: changed in place.
        args: from `parse_args`.

    Raises:
        InputError: the config does not say for which batch size its learning rate is.
    """
    if args.amp and not torch.cuda.is_available():
        cfg.optim_wrapper.type = "BFloat16OptimWrapper"
    elif args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if args.auto_scale_lr:
        if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
            raise InputError(
                "--auto-scale-lr needs the total batch size of the config's learning rate; add "
                "auto_scale_lr=dict(base_batch_size=16) to the config"
            )
        cfg.auto_scale_lr.enable = True


def main() -> None:
    """Train a detector."""
    args = parse_args()
    setup_cache_size_limit_of_dynamo()
    with errors_in_one_line("train.py", resumable=True), tensors_only(args.trust_checkpoint):
        cfg = load_config(args, training=True)
        apply_training_options(cfg, args)
        check_types(cfg, modes=("train", "val"))
        add_safeguards(cfg)
        resolve_resume(cfg, args.resume)
        check_pretrained(cfg)
        preload_checkpoint(cfg)
        prepare_work_dir(cfg)
        check_config(cfg, modes=("train", "val"))
        runner = build_runner(cfg)
        check_same_start(cfg)
        if cfg.get("load_from"):
            resume = bool(cfg.get("resume"))
            check_checkpoint(runner.model, cfg.load_from, strict=resume, resume=resume)
            if resume and not is_local(cfg.load_from):  # the others have been compared
                check_optimizer(cfg, read_checkpoint(cfg.load_from), cfg.load_from)
        runner.train()
        finish_processes()


if __name__ == "__main__":
    main()
