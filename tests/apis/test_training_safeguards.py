"""What tools/train.py adds to any config that is trained."""

import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from misalign_det.apis.config_lookup import packaged_configs
from misalign_det.apis.training_safeguards import add_safeguards
from misalign_det.datasets.transforms import LoadImageOrSkip
from misalign_det.engine import AtomicCheckpointHook, EpochSeedHook, RecordInvalidLossHook

LOAD = dict(type="LoadImageFromFile", color_type="color")


def guarded(**parts):
    cfg = Config(parts)
    add_safeguards(cfg)
    return cfg


class Hooks(list):
    """What mmengine's runner registers: its own hooks, and those of a config."""

    def __init__(self, cfg):
        Runner.register_hooks(self, cfg.get("default_hooks"), cfg.get("custom_hooks"))

    def register_hook(self, hook):
        self.append(hook if isinstance(hook, Hook) else HOOKS.build(hook))

    register_default_hooks = Runner.register_default_hooks
    register_custom_hooks = Runner.register_custom_hooks

    def of(self, kind):
        return [type(hook) for hook in self if isinstance(hook, kind)]


def training_set(*pipeline):
    return dict(train_dataloader=dict(dataset=dict(type="CocoDataset", pipeline=list(pipeline))))


@pytest.mark.parametrize("name", ["fcos_r50_fpn_1x_coco", "jla_triplehead_r18_fpn_12e_bccd"])
def test_baselines_and_methods_get_the_same(name):
    cfg = Config.fromfile(packaged_configs()[name])
    by_epoch = cfg.default_hooks.checkpoint.get("by_epoch", True)
    add_safeguards(cfg)
    added = [cfg.default_hooks[key] for key in ("checkpoint", "epoch_seed", "finite_loss")]
    assert [type(HOOKS.build(hook)) for hook in added] == [
        AtomicCheckpointHook,
        EpochSeedHook,
        RecordInvalidLossHook,
    ]
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 3
    assert cfg.log_processor.by_epoch == by_epoch == (name != "fcos_r50_fpn_1x_coco")
    first = cfg.train_dataloader.dataset.pipeline[0]
    assert first.type == "LoadImageFromFile", "the name that mmdet's tools look for"
    assert type(TRANSFORMS.build(first)) is LoadImageOrSkip
    for split in ("val", "test"):
        step = cfg[f"{split}_dataloader"].dataset.pipeline[0]
        assert type(TRANSFORMS.build(step)) is LoadImageFromFile


def test_twice_is_once():
    cfg = guarded(default_hooks=dict(checkpoint=dict(type="CheckpointHook")), **training_set(LOAD))
    before = cfg.pretty_text
    add_safeguards(cfg)
    assert cfg.pretty_text == before


@pytest.mark.parametrize("parts", [{}, dict(default_hooks=None), dict(default_hooks={})])
def test_the_hook_that_mmengine_adds_is_replaced(parts):
    """Without `default_hooks.checkpoint` mmengine saves each epoch."""
    assert Hooks(Config(parts)).of(CheckpointHook) == [CheckpointHook]
    hooks = Hooks(guarded(**parts))
    assert hooks.of(CheckpointHook) == [AtomicCheckpointHook]
    assert [hook.interval for hook in hooks if isinstance(hook, CheckpointHook)] == [1]


def test_no_checkpoints_stay_none():
    cfg = guarded(default_hooks=dict(checkpoint=None))
    assert set(cfg.default_hooks) == {"checkpoint", "epoch_seed", "finite_loss"}
    assert Hooks(cfg).of(CheckpointHook) == []


def test_what_a_config_says_counts():
    mine = dict(checkpoint=dict(type="Mine"), finite_loss=dict(type="Other"))
    hooks = guarded(default_hooks=mine).default_hooks
    assert hooks == dict(mine, epoch_seed=dict(type="EpochSeedHook"))


@pytest.mark.parametrize(
    ("key", "kind"), [("epoch_seed", EpochSeedHook), ("finite_loss", RecordInvalidLossHook)]
)
def test_none_leaves_a_hook_out(key, kind):
    assert Hooks(guarded()).of(kind) == [kind]
    assert Hooks(guarded(default_hooks={key: None})).of(kind) == []


@pytest.mark.filterwarnings("ignore::misalign_det.utils.old_names.RenamedWarning")
@pytest.mark.parametrize(
    "kind", ["RecordInvalidLossHook", "mmdet.FiniteLossHook", RecordInvalidLossHook]
)
@pytest.mark.parametrize("key", ["default_hooks", "custom_hooks"])
def test_a_hook_of_the_config_is_not_added_again(key, kind):
    """With `custom_hooks` as in the hook's docstring, or under a key of one's own."""
    hook = dict(type=kind)
    cfg = guarded(**{key: dict(mine=hook) if key == "default_hooks" else [hook]})
    assert Hooks(cfg).of(RecordInvalidLossHook) == [RecordInvalidLossHook]


@pytest.mark.parametrize(
    "hook",
    [
        dict(type="mmengine.CheckpointHook"),
        dict(type=CheckpointHook),
        dict(type="CheckpointHook", _scope_="mmengine"),
        dict(type="CheckpointHook", _scope_="mmdet"),
    ],
)
def test_other_spellings_of_the_checkpoint_hook(hook):
    cfg = guarded(default_hooks=dict(checkpoint=dict(hook, interval=7)))
    (found,) = (hook for hook in Hooks(cfg) if isinstance(hook, CheckpointHook))
    assert type(found) is AtomicCheckpointHook and found.interval == 7


def test_every_training_set_loads_with_skipping():
    parts = [dict(type="VOCDataset", pipeline=[LOAD]), dict(type="VOCDataset", pipeline=[LOAD])]
    cfg = guarded(train_dataloader=dict(dataset=dict(type="ConcatDataset", datasets=parts)))
    for part in cfg.train_dataloader.dataset.datasets:
        step = TRANSFORMS.build(part.pipeline[0])
        assert type(step) is LoadImageOrSkip and step.color_type == "color"


@pytest.mark.parametrize("step", [dict(type="LoadImageFromNDArray"), dict(type="LoadEmptyImage")])
def test_other_loading_steps_stay(step):
    cfg = guarded(**training_set(step, dict(type="PackDetInputs")))
    assert cfg.train_dataloader.dataset.pipeline == [step, dict(type="PackDetInputs")]


@pytest.mark.parametrize("kind", [LoadImageFromFile, "mmcv.LoadImageFromFile"])
def test_other_spellings_of_the_loading_step(kind):
    cfg = guarded(**training_set(dict(type=kind)))
    first = cfg.train_dataloader.dataset.pipeline[0]
    assert type(TRANSFORMS.build(first)) is LoadImageOrSkip
