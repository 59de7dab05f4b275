"""What every run of tools/train.py has, whatever its config: hooks that let it be interrupted."""

from collections.abc import Mapping

from mmcv.transforms import LoadImageFromFile
from mmdet.registry import HOOKS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook

from ..datasets.transforms import transform_class
from ..engine import EpochSeedHook, RecordInvalidLossHook
from ..utils import find_type, is_type, leaf_datasets

_HOOKS = {"epoch_seed": EpochSeedHook, "finite_loss": RecordInvalidLossHook}


def add_safeguards(cfg: Config) -> None:
    """Add this package's hooks and its loading step to a config that is to be trained.

    They are added here and not in the configs, so that a baseline's config names mmdet's modules
    alone and is still trained in the same way as the others:

    - mmengine's ``CheckpointHook`` becomes :class:`AtomicCheckpointHook`, its arguments unchanged,
      also the one that mmengine adds to a config without ``default_hooks.checkpoint``. A hook of
      another type stays, and None still saves no checkpoints.
    - ``default_hooks.epoch_seed`` and ``default_hooks.finite_loss`` are :class:`EpochSeedHook` and
      :class:`RecordInvalidLossHook`, unless the config has these keys, or such a hook under another
      key or in ``custom_hooks``. None leaves a hook out.
    - ``LoadImageFromFile``, as the first step of a training pipeline, becomes
      :class:`LoadImageOrSkip`.

    Args:
        cfg: changed in place.

    Example:
        >>> cfg = Config.fromfile('configs/fcos_r50_fpn_1x_coco.py')
        >>> add_safeguards(cfg)
        >>> cfg.default_hooks.checkpoint.type
        'AtomicCheckpointHook'
    """
    if cfg.get("default_hooks") is None:
        cfg.default_hooks = {}
    hooks = cfg.default_hooks
    checkpoint = hooks.setdefault("checkpoint", ConfigDict(type="CheckpointHook", interval=1))
    if checkpoint and find_type(checkpoint.get("type"), HOOKS) is CheckpointHook:
        checkpoint["type"] = "AtomicCheckpointHook"
        if "_scope_" in checkpoint:  # mmengine's registry has no such hook
            checkpoint["_scope_"] = "mmdet"
    given = [*hooks.values(), *(cfg.get("custom_hooks") or ())]
    given = [hook for hook in given if isinstance(hook, Mapping)]  # not None, not built already
    for name, kind in _HOOKS.items():
        if name in hooks:
            if hooks[name] is None:  # mmengine takes None for the hooks that it adds itself, only
                del hooks[name]
        elif not any(is_type(hook.get("type"), kind, HOOKS) for hook in given):
            hooks[name] = ConfigDict(type=kind.__name__)
    dataset = (cfg.get("train_dataloader") or {}).get("dataset")
    for _, leaf in leaf_datasets(dataset or {}):
        pipeline = leaf.get("pipeline")
        if pipeline and transform_class(pipeline[0]) is LoadImageFromFile:
            # Under the name that mmdet's tools look for, see LoadImageOrSkip.
            first = {**pipeline[0], "type": "LoadImageFromFile", "_scope_": "misalign_det"}
            leaf["pipeline"] = [  # type: ignore[index]  # a ConfigDict
                ConfigDict(first),
                *pipeline[1:],
            ]
