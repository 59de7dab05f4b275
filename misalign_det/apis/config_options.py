"""Read ``--cfg-options`` and merge them into a config; ``data_root=FOLDER`` moves its paths."""

import copy
import logging
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from ..errors import InputError
from ..utils import leaf_datasets
from .config_keys import check_options, check_paths

_SPLITS = ("train", "val", "test")
_USED = tuple(f"{split}_{part}" for split in _SPLITS for part in ("dataloader", "evaluator"))

_WITHOUT_WORKERS = {"persistent_workers": False, "prefetch_factor": None, "timeout": 0}

# Keys whose values are paths, besides those that end in one of _PATH_ENDS or are in a data_prefix.
_PATH_KEYS = ("checkpoint", "load_from", "pretrained", "teacher_ckpt", "teacher_config")
_PATH_ENDS = ("_root", "_dir", "_file", "_file_path", "_prefix")
_PAIRS = ("()", "[]")


def parse_option(key: str, text: str) -> Any:
    """The value of an option, as mmengine's ``DictAction`` reads it, but with its spaces.

    A path is taken as it is given, commas included, unless it is in brackets or quotes.

    Args:
        key: dotted key.
        text: behind the ``=``.

    Raises:
        ValueError: the brackets of a list do not match.

    Example:
        >>> parse_option('metainfo.classes', 'traffic light,car')
        ['traffic light', 'car']
        >>> parse_option('data_root', 'my data, new/'), parse_option('data_root', 'None')
        ('my data, new/', None)
    """
    *heads, last = key.split(".")
    ends = text[:1] + text[-1:]
    if last in _PATH_KEYS or last.endswith(_PATH_ENDS) or heads[-1:] == ["data_prefix"]:
        if text not in ("None", "True", "False") and ends not in (*_PAIRS, "''", '""'):
            return text
    return _parse(text)


def _parse(text: str) -> Any:
    text = text.strip().strip("'\"").strip()
    parts = _split(text)
    pair = text[:1] + text[-1:] if len(parts) == 1 else ""
    if pair in _PAIRS:
        parts = _split(text[1:-1])
    elif len(parts) == 1:
        return DictAction._parse_int_float_bool(text)
    values = [_parse(part) for part in (parts if parts[-1].strip() else parts[:-1])]
    return tuple(values) if pair == "()" else values


def _split(text: str) -> list[str]:
    """The parts between the commas that are in no brackets; the last may be empty."""
    if "," in text and any(text.count(p[0]) != text.count(p[1]) for p in _PAIRS):
        raise ValueError(f"the brackets in {text!r} do not match")
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> Config:
    """Merge command-line options into a config; `data_root` moves all paths below the old root.

    A config repeats its root in each dataloader and in each evaluator's annotation file, so that
    mmengine's plain merge would change only a variable that nothing reads. Here every string of
    the config that is a path under the old root is moved. The old root is the config's top-level
    `data_root` or, if no dataset lies under that one, the root that all datasets share. Other
    options are merged afterwards, and so override it.

    Args:
        cfg: changed in place.
        options: dotted keys and values, as `DictAction` parses `--cfg-options`.

    Returns:
        `cfg`. Options that probably change nothing are logged as warnings.

    Raises:
        InputError: `data_root` would move no path, or nothing reads the key of an option; the
            message says which keys the config has.

    Example:
        >>> from mmengine.config import Config
        >>> cfg = Config({'data_root': 'data/coco/', 'val_evaluator': {'ann_file': 'data/coco/v'}})
        >>> merge_options(cfg, {'data_root': '/big/coco'}).val_evaluator.ann_file
        '/big/coco/v'
    """
    options = dict(options or {})
    root = options.pop("data_root", None)
    notes = []
    if root is not None:
        notes += _move(cfg, osp.expanduser(str(root)).rstrip("/") or "/")
    if options:
        before = cfg._cfg_dict  # merging does not change it, but replaces it
        check_paths(before, options)
        cfg.merge_from_dict(copy.deepcopy(options))  # it removes `_delete_`
        notes += check_options(before, cfg, options)
    for note in notes:
        print_log(note, logger="current", level=logging.WARNING)
    return cfg


def fit_workers(cfg: Config) -> None:
    """Let ``num_workers=0`` load the data in the process itself, as torch does without workers.

    Torch refuses settings of workers where there are none, and most configs have them.

    Args:
        cfg: its dataloaders are changed in place.

    Example:
        >>> cfg = Config(dict(val_dataloader=dict(num_workers=0, persistent_workers=True)))
        >>> fit_workers(cfg)
        >>> cfg.val_dataloader.persistent_workers
        False
    """
    for split in _SPLITS:
        loader = cfg.get(f"{split}_dataloader")
        if not isinstance(loader, Mapping) or loader.get("num_workers", 0) != 0:
            continue
        for key, without in _WITHOUT_WORKERS.items():
            if loader.get(key):
                loader[key] = without  # type: ignore[index]  # a ConfigDict


def _move(cfg: Config, new: str) -> list[str]:
    """Move the paths of a config to another root; return notes on datasets that are not moved."""
    roots = dict(_roots(cfg))
    top = _clean(cfg.get("data_root"))
    old = top
    used = [cfg[key] for key in _USED if key in cfg]
    if not top or (used and not _paths_under(used, top)):
        shared = {_clean(root) for root in roots.values()}
        old = shared.pop() if len(shared) == 1 else ""
    if not old:
        has = f"its top-level data_root is {top!r}" if top else "it has no top-level data_root"
        found = "; ".join(f"{key}={root}" for key, root in roots.items())
        paths = f"The roots that it reads: {found}." if found else "Its datasets have no data_root."
        raise InputError(
            f"--cfg-options data_root={new} would move no path of this config: {has}, and its data "
            f"do not share one root. {paths} Set the paths themselves: "
            f"{next(iter(roots), 'train_dataloader.dataset.data_root')}=... etc."
        )
    for key in list(cfg.keys()):
        cfg[key] = _moved(cfg[key], old, new)
    if top and old != top:
        cfg["data_root"] = f"{new.rstrip('/')}/"
    stay = [f"{key}={root}" for key, root in roots.items() if not _under(root, old)]
    return (
        [
            f"--cfg-options data_root={new} moves the paths under {old}. Not moved: "
            f"{', '.join(stay)}. Options with these keys move them."
        ]
        if stay
        else []
    )


def _roots(cfg: Config) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of each dataset's `data_root`."""
    for split in _SPLITS:
        dataset = (cfg.get(f"{split}_dataloader") or {}).get("dataset")
        if isinstance(dataset, Mapping):
            for key, data in leaf_datasets(dataset, f"{split}_dataloader.dataset"):
                if _clean(data.get("data_root")):
                    yield f"{key}.data_root", data["data_root"]


def _clean(root: Any) -> str:
    return str(root or "").rstrip("/")


def _under(path: str, root: str) -> bool:
    return f"{path}/".startswith(f"{root}/")


def _paths_under(value: Any, root: str) -> bool:
    """Whether a string inside `value` lies at or under a root."""
    if isinstance(value, str):
        return _under(value, root)
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    return any(_paths_under(item, root) for item in value)


def _moved(value: Any, old: str, new: str) -> Any:
    """`value` with every path at or under `old` moved to `new`; containers keep their type."""
    if isinstance(value, str):
        if not _under(value, old):
            return value
        return osp.join(new, value[len(old) :].lstrip("/"))
    if isinstance(value, dict):
        for key in list(value):
            value[key] = _moved(value[key], old, new)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    return value
