"""The configs of several detectors, checked before the work on the first one begins."""

import argparse
from collections.abc import Callable

from mmengine.config import Config

from ..apis.cli import load_config
from ..engine.named_weights import check_weights


def load_configs(args: argparse.Namespace, check: Callable[[Config], object]) -> list[Config]:
    """Load and check the config of each detector, and look for its checkpoint.

    Args:
        args: with ``pairs``, see :func:`~misalign_det.apis.cli.pair_detectors`, and the arguments
            of :func:`~misalign_det.apis.cli.load_config`. Its ``config`` and ``checkpoint`` are set
            to those of each detector in turn.
        check: called with each config; raises InputError where it, or its data, cannot be used.

    Returns:
        The configs in the order of ``pairs``.

    Raises:
        ConfigNotFoundError: there is no such config.
        ConfigError: a config cannot be read.
        CheckpointError: there is no such checkpoint.
        InputError: see :func:`~misalign_det.apis.cli.load_config`.
    """
    configs = []
    for config, checkpoint in args.pairs:
        args.config, args.checkpoint = config, checkpoint
        check_weights(checkpoint)
        configs.append(load_config(args))
        check(configs[-1])
    return configs
