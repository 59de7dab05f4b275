"""The config snippets in docstrings work when pasted, and build the class that they show."""

import inspect
import re
import textwrap

import pytest
import torch
from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from misalign_det.datasets import LoadImageOrSkip
from misalign_det.engine import (
    AtomicCheckpointHook,
    BFloat16OptimWrapper,
    ChannelsLastHook,
    EpochSeedHook,
    RecordInvalidLossHook,
)


def snippet(cls):
    """The config in a class's docstring, parsed by mmengine."""
    example = re.search(r"Example::\n\n((?:    .*\n|\n)+)", inspect.getdoc(cls) + "\n")[1]
    return Config.fromstring(textwrap.dedent(example), ".py")


@pytest.mark.parametrize(
    "cls", [AtomicCheckpointHook, ChannelsLastHook, EpochSeedHook, RecordInvalidLossHook]
)
def test_hooks(cls):
    cfg = snippet(cls)
    assert cfg.custom_imports.imports == ["misalign_det"]
    (hook,) = cfg.get("custom_hooks") or cfg.default_hooks.values()
    assert type(HOOKS.build(hook)) is cls


def test_optim_wrapper():
    cfg = snippet(BFloat16OptimWrapper)
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    assert type(wrapper) is BFloat16OptimWrapper


def test_transform():
    cfg = snippet(LoadImageOrSkip)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [type(TRANSFORMS.build(step)) for step in pipeline][0] is LoadImageOrSkip
