"""One `--cfg-options data_root=...` that moves every path of a config."""

import os.path as osp

from .annotation_checks import InputError


def merge_options(cfg, options):
    """Merge command-line options into a config; `data_root` moves all paths below the old root.

    A config repeats its root in each dataloader and in each evaluator's annotation file, so
    mmengine's plain merge would change a variable that nobody reads. Here every string of the
    config that lies under the old `data_root` moves along. Other options are merged afterwards,
    so that they win.

    Args:
        cfg (mmengine.Config): changed in place.
        options (dict | None): dotted keys and values, as `DictAction` parses `--cfg-options`.

    Returns:
        mmengine.Config: `cfg`.

    Raises:
        InputError: `data_root` is given, but the config has none to replace.

    Example:
        >>> from mmengine.config import Config
        >>> cfg = Config({'data_root': 'data/coco/', 'val_evaluator': {'ann_file': 'data/coco/v'}})
        >>> merge_options(cfg, {'data_root': '/big/coco'}).val_evaluator.ann_file
        '/big/coco/v'
    """
    options = dict(options or {})
    root = options.pop("data_root", None)
    if root is not None:
        old = str(cfg.get("data_root") or "").rstrip("/")
        if not old:
            raise InputError(
                "--cfg-options data_root=... was given, but this config has no top-level "
                "data_root; set the paths themselves: train_dataloader.dataset.data_root=... etc.")
        new = osp.expanduser(str(root)).rstrip("/") or "/"
        for key in list(cfg.keys()):
            cfg[key] = _moved(cfg[key], old, new)
    cfg.merge_from_dict(options)
    return cfg


def _moved(value, old, new):
    """`value` with every string at or under `old` put under `new`; containers keep their type."""
    if isinstance(value, str):
        if not f"{value}/".startswith(f"{old}/"):
            return value
        return osp.join(new, value[len(old):].lstrip("/"))
    if isinstance(value, dict):
        for key in list(value):
            value[key] = _moved(value[key], old, new)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(item, old, new) for item in value)
    return value
