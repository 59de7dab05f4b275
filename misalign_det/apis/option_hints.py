"""Where a key of an option probably belongs, and numbers that mmengine would choke on later."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from mmengine.config import Config

from ..utils import walk

# mmdet 2's keys and what stands for them in mmdet 3; a key stands for those below it, too.
OLD_NAMES = {
    "seed": "randomness.seed",
    "deterministic": "randomness.deterministic",
    "total_epochs": "train_cfg.max_epochs",
    "runner": "train_cfg (max_epochs or max_iters)",
    "evaluation": "train_cfg.val_interval and val_evaluator",
    "checkpoint_config": "default_hooks.checkpoint",
    "log_config": "default_hooks.logger and visualizer",
    "lr_config": "param_scheduler",
    "optimizer_config": "optim_wrapper.clip_grad",
    "data": "train_dataloader, val_dataloader and test_dataloader",
    "dist_params": "env_cfg.dist_cfg",
    "fp16": "--amp, or optim_wrapper.type=AmpOptimWrapper",
    "resume_from": "--resume",
    "workflow": "train_cfg and val_cfg",
}

_COUNT = ("a whole number from 1 on", lambda v: isinstance(v, Integral) and v >= 1)
_WORKERS = ("a whole number from 0 on", lambda v: isinstance(v, Integral) and v >= 0)
_RATE = ("a number from 0 on", lambda v: isinstance(v, Real) and v >= 0)
_SEED = ("a whole number or None", lambda v: v is None or isinstance(v, Integral))
_NUMBERS = {
    "train_cfg.max_epochs": _COUNT,
    "train_cfg.max_iters": _COUNT,
    "train_cfg.val_interval": _COUNT,
    "optim_wrapper.optimizer.lr": _RATE,
    "randomness.seed": _SEED,
    **{f"{split}_dataloader.batch_size": _COUNT for split in ("train", "val", "test")},
    **{f"{split}_dataloader.num_workers": _WORKERS for split in ("train", "val", "test")},
}


def new_name(path: str) -> str | None:
    """What stands for a dotted key of mmdet 2 in mmdet 3; None for any other key."""
    return OLD_NAMES.get(path.split(".")[0])


def wrong_number(path: str, value: Any) -> str | None:
    """What is wrong with the value of an option that has to be a number; None if nothing is.

    Args:
        path: dotted key.
        value: as the command line gave it.
    """
    if path not in _NUMBERS or isinstance(value, Mapping):
        return None
    wanted, fits = _NUMBERS[path]
    if fits(value) and not isinstance(value, bool):
        return None
    return f"--cfg-options {path}={value}: it has to be {wanted}."


def has_key(value: Any, parts: list[str]) -> bool:
    """Whether a part of a config has a dotted key, given in parts."""
    for part in parts:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def same_key_elsewhere(cfg: Config, parts: list[str]) -> list[str]:
    """Where a key of at least two parts below the top lies deeper in the same part of a config.

    Such as ``model.detector.test_cfg.score_thr`` for ``model.test_cfg.score_thr``.

    Args:
        cfg: the config.
        parts: the dotted key in parts.
    """
    top, *below = parts
    if len(below) < 2:
        return []
    ending = "." + ".".join(below)
    return [key for key, _ in walk(cfg) if key.startswith(f"{top}.") and key.endswith(ending)]
