"""The config in the docstring of each registered class works when pasted, and uses the class."""

import inspect
import re
import textwrap
from importlib import import_module

import pytest
import torch
from mmdet.registry import HOOKS, METRICS, MODELS, OPTIM_WRAPPERS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from misalign_det.apis.model_check import check_model
from misalign_det.models import BoxVotingHead, CLBalancedNMS, LossAwareFCOSHead
from misalign_det.registry import TRANSFORMS as SCOPED_TRANSFORMS
from misalign_det.utils import is_type
from misalign_det.utils.config_walk import walk
from misalign_det.utils.old_names import OLD_NAMES

REGISTRIES = HOOKS, METRICS, MODELS, OPTIM_WRAPPERS, TASK_UTILS, TRANSFORMS, SCOPED_TRANSFORMS
OLD = {old.name for old in OLD_NAMES}
CLASSES = sorted(
    {
        cls
        for registry in REGISTRIES
        for name, cls in registry.module_dict.items()
        if cls.__module__.startswith("misalign_det.") and name not in OLD
    },
    key=lambda cls: cls.__name__,
)


def snippets(cls):
    """The blocks of a docstring that are configs."""
    doc = inspect.getdoc(cls).partition("\nExample")[2] + "\n"
    blocks = re.findall(r"::\n\n(( +).*\n(?:\2.*\n|\n)*)", doc)
    return [textwrap.dedent(block) for block, _ in blocks if "custom_imports" in block]


def used_in_model(cfg):
    """The classes of a detector's modules, its assigner and its NMS."""
    check_model(cfg.model)
    model = MODELS.build(cfg.model)
    head = model.bbox_head
    if isinstance(head, LossAwareFCOSHead):
        assert head.assigner  # or it would not train
    parts = [*model.modules(), getattr(head, "assigner", None)]
    nms = head.test_cfg.nms
    if is_type(nms.type, CLBalancedNMS, TASK_UTILS):
        assert callable(getattr(import_module("mmcv.ops.nms"), nms.type))  # mmcv calls it
        parts.append(TASK_UTILS.build(nms))
    return {type(part) for part in parts}


def used_in_runner(cfg, cls):
    """The classes of those parts of a runner that the config gives this type."""
    hooks = [*cfg.default_hooks.values(), *cfg.get("custom_hooks", [])]
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else []
    steps = cfg.train_dataloader.dataset.pipeline
    parts = [
        registry.build(part)
        for registry, configs in ((HOOKS, hooks), (METRICS, evaluators), (TRANSFORMS, steps))
        for part in configs
        if registry.get(part.type) is cls
    ]
    parts.append(build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper))
    return {type(part) for part in parts}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_snippet(cls, tmp_path):
    found = snippets(cls)
    assert found, f"{cls.__name__} has no config in its docstring"
    for text in found:
        path = tmp_path / "config.py"
        path.write_text(text)
        cfg = Config.fromfile(path)
        assert "_base_ = 'mmdet::" in text and cfg.custom_imports.imports == ["misalign_det"]
        assert not [key for key, _ in walk(cfg) if key.endswith("_delete_")]
        used = used_in_model(cfg) | used_in_runner(cfg, cls)
        assert any(part is cls or BoxVotingHead is cls in part.__bases__ for part in used)


def test_there_are_classes_of_each_kind():
    assert len(CLASSES) >= 18
    for registry in REGISTRIES:
        assert any(cls in registry.module_dict.values() for cls in CLASSES), registry.name
