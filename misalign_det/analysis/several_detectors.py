"""Several detectors, all of them checked before the work on the first one begins."""

import argparse
from collections.abc import Callable, Iterator, Sequence

from mmdet.models.detectors import BaseDetector
from mmengine.config import Config

from ..apis.cli import load_config
from ..apis.detector import check_device, load_detector
from ..apis.error_reporting import config_in_use
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


def load_detectors(args: argparse.Namespace, cfgs: Sequence[Config]) -> Iterator[BaseDetector]:
    """Build every detector and load its checkpoint, then give them one after the other.

    Only one of them is on the device at a time, if the caller keeps no other.

    Args:
        args: with ``pairs`` and ``device``.
        cfgs: from :func:`load_configs`.

    Returns:
        The detectors in eval mode, each on the device when it is its turn.

    Raises:
        CheckpointError: a file is unsafe, damaged or of another architecture.
        ConfigError: nothing can be built from a config.
        InputError: there is no such device.
    """
    check_device(args.device)
    loaded = []
    for cfg, (_, checkpoint) in zip(cfgs, args.pairs):
        config_in_use.set(cfg)  # which an error is about
        loaded.append(load_detector(cfg, checkpoint))
    return _in_turn(loaded, cfgs, args.device)


def _in_turn(
    loaded: list[BaseDetector], cfgs: Sequence[Config], device: str
) -> Iterator[BaseDetector]:
    for cfg in cfgs:
        config_in_use.set(cfg)
        yield loaded.pop(0).to(device)
