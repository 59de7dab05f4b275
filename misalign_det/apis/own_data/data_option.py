"""The option ``--data`` of the tools."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ...errors import InputError
from ...utils.processes import is_first_process
from .config_filling import config_classes, fill_config
from .conversion import convert


def use_data(
    cfg: Config,
    folder: str,
    options: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    training: bool = False,
) -> None:
    """Make a config use the data of a folder, and log what was found in it.

    Args:
        cfg: with ``work_dir``; changed in place.
        folder: see :func:`~.conversion.convert`.
        options: of the command line, which are merged afterwards.
        classes: of the checkpoint, if one is given.
        training: whether a training split is needed.

    Raises:
        InputError: the folder or the config cannot be used, or an option contradicts.
    """
    if "data_root" in (options or {}):
        raise InputError("--data and --cfg-options data_root=... both name the data. Give one.")
    prefer = classes or config_classes(cfg)
    data = convert(folder, cfg.work_dir, classes, prefer)
    if training and "train" not in data.ann_files:
        raise InputError(
            f"{data.root} has no training images: its only splits are "
            f"{' and '.join(sorted(set(data.ann_files)))}."
        )
    fill_config(cfg, data)
    if is_first_process():
        for line in data.lines:
            print_log(line, logger="current")
        for line in data.warnings:
            print_log(line, logger="current", level=logging.WARNING)
