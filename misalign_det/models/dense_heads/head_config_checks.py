"""Checks of a loss-aware head's config: keys and parts left over from another head, strides."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mmdet.models.dense_heads import ATSSHead, FCOSHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.losses import (
    GHMC,
    BalancedL1Loss,
    BoundedIoULoss,
    EQLV2Loss,
    L1Loss,
    MSELoss,
    SeesawLoss,
    SmoothL1Loss,
    VarifocalLoss,
)
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config.config import DELETE_KEY
from torch import Tensor

from ...utils import argument_names, find_type, is_type
from ..losses import DCLoss

COORDINATE_LOSSES = (L1Loss, SmoothL1Loss, BalancedL1Loss, MSELoss, BoundedIoULoss)
BACKGROUND_LOSSES = (SeesawLoss, EQLV2Loss)
ASSIGNERS = "JLAAssigner, SpatialAlignAssigner or another BatchAssigner"


def check_head_config(head: type, config: Mapping) -> None:
    """Refuse keys that a head does not read and parts that do not fit it, all in one error.

    A config that changes ``bbox_head.type`` alone keeps every other key of the head that stood
    there, and of its ``train_cfg``.

    Args:
        head: class of the head.
        config: arguments of the head beyond those that its class names itself.

    Raises:
        ValueError: lists them and says what to write.
    """
    problems = [
        *_unread("bbox_head", config, set(argument_names(head)[0]), head.__name__),
        *_wrong_parts(config),
        *_wrong_training(config.get("train_cfg") or {}, head),
    ]
    if problems:
        raise ValueError(
            f"{head.__name__} does not fit this config: {'; '.join(problems)}. A config keeps the "
            "keys of those in its _base_: write bbox_head=dict(_delete_=True, "
            f"type='{head.__name__}', ...) and train_cfg=dict(_delete_=True, "
            "assigner=dict(type=...)) to drop them all."
        )


def has_fcos_targets(head: type) -> bool:
    """Whether a head finds its positives as FCOS does, without an assigner; VFNet does not."""
    return issubclass(head, FCOSHead) and not issubclass(head, ATSSHead)


def refuse_assigner(head: type, train_cfg: Mapping | None) -> None:
    """Raise a ValueError where a head with FCOS's own targets is given one of this package's."""
    if not has_fcos_targets(head):
        return
    assigner = find_type(((train_cfg or {}).get("assigner") or {}).get("type"), TASK_UTILS)
    if hasattr(assigner, "assign_batch"):
        raise ValueError(
            f"{head.__name__} takes FCOS's targets and would not read train_cfg.assigner, "
            f"{assigner.__name__}. It trains TripleHead, RFAHead or another head "
            "derived from LossAwareFCOSHead; for this head set train_cfg=None."
        )


def without_delete_keys(config: Any) -> Any:
    """A config without ``_delete_``, which no class reads; itself where no dict in it has the key.

    mmengine removes the key where it deletes something. Where the ``_base_`` has nothing to delete,
    the key stays in the config.

    Args:
        config: not changed. Other values than dicts are returned as they are.
    """
    if not isinstance(config, dict):
        return config
    kept = {key: without_delete_keys(value) for key, value in config.items() if key != DELETE_KEY}
    same = len(kept) == len(config) and all(value is config[key] for key, value in kept.items())
    return config if same else type(config)(kept)


def check_levels(head: BaseDenseHead, feats: Sequence[Tensor]) -> None:
    """Raise a ValueError where a head's strides are not one for each level that it is given."""
    if len(feats) != len(head.strides):
        raise ValueError(
            f"{type(head).__name__} has strides {list(head.strides)} and is given {len(feats)} "
            "levels. Set one stride for each level of the neck (num_outs)."
        )


def _unread(key: str, config: Mapping, read: set[str], reader: str) -> list[str]:
    unread = []
    for name in config:
        if name not in read and name not in ("type", "_scope_"):
            near = get_close_matches(name, read, n=1, cutoff=0.8)
            unread.append(f"{name} (did you mean {near[0]}?)" if near else name)
    return [f"{key} has {', '.join(unread)}, which {reader} does not read"] if unread else []


def _wrong_parts(head_config: Mapping) -> list[str]:
    """Arguments that the head reads, with the value of another head."""
    problems = []
    parts = {key: value for key, value in head_config.items() if isinstance(value, Mapping)}
    coder = find_type(parts.get("bbox_coder", {}).get("type"), TASK_UTILS)
    if coder and not is_type(coder, DistancePointBBoxCoder, TASK_UTILS):
        problems.append(
            f"bbox_head.bbox_coder is a {coder.__name__}, and the head predicts distances: leave "
            "it out for DistancePointBBoxCoder"
        )
    losses: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
        ("loss_cls", VarifocalLoss, "takes no class labels: FocalLoss and QualityFocalLoss do"),
        ("loss_cls", GHMC, "reads no weights of the positives: FocalLoss does"),
        ("loss_cls", BACKGROUND_LOSSES, "reads a column for background: FocalLoss does not"),
        ("loss_bbox", COORDINATE_LOSSES, "compares coordinates, not whole boxes as IoULoss does"),
    )
    for key, unfit, why in losses:
        config = parts.get(key, {})
        loss = find_type(config.get("type"), MODELS)
        if is_type(loss, DCLoss, MODELS):  # acts as the loss that it wraps
            loss = find_type((config.get("loss") or {}).get("type"), MODELS)
        if is_type(loss, unfit, MODELS):
            problems.append(f"bbox_head.{key} is {loss.__name__}, which {why}")
    return problems


def _is_idle(key: str, value: object) -> bool:
    """Whether a key of train_cfg, as many configs of mmdet hold it, changes nothing in any head."""
    if key == "sampler":
        kind = value.get("type") if isinstance(value, Mapping) else value
        return kind is None or is_type(kind, PseudoSampler, TASK_UTILS)
    if key == "pos_weight":
        # mmdet takes 0 or less as 1.
        return value is None or (isinstance(value, int | float) and (value == 1 or value <= 0))
    return key in ("allowed_border", "debug")


def _wrong_training(train_cfg: Mapping, head: Any) -> list[str]:
    changes = {key: value for key, value in train_cfg.items() if not _is_idle(key, value)}
    problems = _unread("train_cfg", changes, set(head.train_cfg_keys), head.__name__)
    if problems and head.__module__.split(".")[0] != __name__.split(".")[0]:
        problems[0] += " (a head of your own names the keys that it reads in train_cfg_keys)"
    config = train_cfg.get("assigner")
    if not isinstance(config, Mapping):
        return problems
    assigner = find_type(config.get("type"), TASK_UTILS)
    if not isinstance(assigner, type):  # the registry says what it does not know
        return problems
    if hasattr(assigner, "assign_batch"):
        return problems + _unread(
            "train_cfg.assigner", config, set(argument_names(assigner)[0]), assigner.__name__
        )
    return [*problems, f"train_cfg.assigner is {assigner.__name__}, where {ASSIGNERS} fits"]
