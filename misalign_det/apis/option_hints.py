"""Hints for ``--cfg-options``: names of mmdet 2, misplaced keys, values that cannot be right.

Also the keys that a class reads from a part of a config that has no type of its own.
"""

import functools
import inspect
import re
from collections.abc import Mapping
from multiprocessing import get_all_start_methods
from numbers import Integral, Real
from typing import Any

from mmengine.config import Config

from ..utils import walk

# Keys of mmdet 2 and those of mmdet 3 that replace them; also for all keys below them.
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

# Of mmengine's loss scale, and of settings that choose a number themselves.
_WORDS_FOR_NUMBERS = ("dynamic", "auto")

_COUNT = ("a whole number from 1 on", lambda v: isinstance(v, Integral) and int(v) >= 1)
_WORKERS = ("a whole number from 0 on", lambda v: isinstance(v, Integral) and int(v) >= 0)
_RATE = ("a number from 0 on", lambda v: isinstance(v, Real) and float(v) >= 0)
_SEED = ("a whole number or None", lambda v: v is None or isinstance(v, Integral))
_PREFETCH = (
    "a whole number from 1 on, or None",
    lambda v: v is None or (isinstance(v, Integral) and int(v) >= 1),
)
_START = (
    f"one of {', '.join(get_all_start_methods())}",
    lambda v: v in get_all_start_methods(),
)
_CHECKS = {
    "train_cfg.max_epochs": _COUNT,
    "train_cfg.max_iters": _COUNT,
    "train_cfg.val_interval": _COUNT,
    "optim_wrapper.optimizer.lr": _RATE,
    "randomness.seed": _SEED,
    "env_cfg.mp_cfg.mp_start_method": _START,
    **{f"{split}_dataloader.batch_size": _COUNT for split in ("train", "val", "test")},
    **{f"{split}_dataloader.num_workers": _WORKERS for split in ("train", "val", "test")},
    **{f"{split}_dataloader.prefetch_factor": _PREFETCH for split in ("train", "val", "test")},
}


def new_name(path: str) -> str | None:
    """The key of mmdet 3 that replaces a key of mmdet 2.

    Args:
        path: dotted key.

    Returns:
        None for a key that mmdet 2 does not have.
    """
    return OLD_NAMES.get(path.split(".")[0])


def wrong_value(path: str, value: Any) -> str | None:
    """Check the value of an option whose possible values are known.

    Args:
        path: dotted key.
        value: as parsed from the command line.

    Returns:
        What is wrong; None if nothing is, or if the option is not among those checked.
    """
    if path not in _CHECKS or isinstance(value, Mapping):
        return None
    wanted, fits = _CHECKS[path]
    if fits(value) and not isinstance(value, bool):
        return None
    return f"--cfg-options {path}={value}: it has to be {wanted}."


def text_for_number(path: str, value: Any, old: Any) -> str | None:
    """Check that an option does not put a text where the config has a number.

    Args:
        path: dotted key.
        value: as parsed from the command line.
        old: the config's own value, or list of values.

    Returns:
        What is wrong; None if nothing is.
    """
    numbers = old if isinstance(old, (list, tuple)) else [old]
    if not numbers or not all(isinstance(n, Real) and not isinstance(n, bool) for n in numbers):
        return None
    values = value if isinstance(value, (list, tuple)) else [value]
    texts = [v for v in values if isinstance(v, str) and v not in _WORDS_FOR_NUMBERS]
    if not texts:
        return None
    kind = "numbers" if numbers is old else "a number"
    given = f"--cfg-options {path}={value}"
    return f"{given}: {texts[0]!r} is not a number; the config has {kind}, {old}."


@functools.cache
def keys_in_source(kind: Any, name: str) -> frozenset[str]:
    """The keys that a class of mmdet, mmengine or this package asks a dict for, by its source.

    Args:
        kind: the class; its bases count, too.
        name: what the dict is called there, as a regular expression.

    Returns:
        The keys. None are found in other packages, and where there is no source.

    Example:
        >>> from mmdet.models.dense_heads import YOLOXHead
        >>> sorted(keys_in_source(YOLOXHead, '(test_)?cfg'))
        ['max_per_img', 'min_bbox_size', 'nms', 'nms_pre', 'score_thr']
    """
    asked = re.compile(
        rf"\b{name}(?:\.(?:get|pop)\(|\[)\s*['\"](?P<a>\w+)['\"]|\b{name}\.(?P<b>\w+)"
        rf"|['\"](?P<c>\w+)['\"] (?:not )?in (?:self\.)?{name}\b"
    )
    found: set[str] = set()
    for base in getattr(kind, "__mro__", ()):
        if base.__module__.split(".")[0] in ("mmdet", "mmengine", "misalign_det"):
            try:
                source = inspect.getsource(base)
            except (OSError, TypeError):
                continue
            found.update(m["a"] or m["b"] or m["c"] for m in asked.finditer(source))
    return frozenset(found - set(dir(dict)))


def has_key(value: Any, parts: list[str]) -> bool:
    """Whether a part of a config has a nested key.

    Args:
        value: part of a config.
        parts: the dotted key, split at its dots.
    """
    for part in parts:
        if isinstance(value, (list, tuple)) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return False
    return True


def same_key_elsewhere(cfg: Config, parts: list[str]) -> list[str]:
    """Find a key deeper in the same top-level part of a config.

    For ``model.test_cfg.score_thr`` this may be ``model.detector.test_cfg.score_thr``.

    Args:
        cfg: the config.
        parts: the dotted key, split at its dots.

    Returns:
        Dotted keys; none for a key with fewer than two parts below the top.
    """
    top, *below = parts
    if len(below) < 2:
        return []
    ending = "." + ".".join(below)
    return [key for key, _ in walk(cfg) if key.startswith(f"{top}.") and key.endswith(ending)]
