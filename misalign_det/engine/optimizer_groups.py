"""The optimizer's groups in checkpoints of before `EfficientNetLite0` froze stages when built."""

from typing import Any

from torch import nn

from .architecture import unwrap_model


def leave_out_frozen(model: nn.Module, checkpoint: dict) -> None:
    """Leave out the groups of parameters that have had none since they are frozen when built.

    With ``paramwise_cfg`` mmengine makes a group of each parameter that is trained when the
    optimizer is built. Frozen stages of ``EfficientNetLite0`` were frozen after that: they have
    groups in older checkpoints, which torch would refuse to load. They hold nothing, because those
    parameters never had a gradient.

    Args:
        model: built; may be wrapped for several processes.
        checkpoint: with ``optimizer`` and ``param_schedulers``; changed in place if it has them.
    """
    model = unwrap_model(model)
    frozen = {
        f"{owner}.{name}" if owner else name
        for owner, module in model.named_modules()
        for name in getattr(module, "frozen_when_built", ())
    }
    before = [name for name, p in model.named_parameters() if p.requires_grad or name in frozen]
    optimizer = checkpoint.get("optimizer") or {}
    groups = optimizer.get("param_groups") or []  # several optimizers: a dict of such dicts
    if not frozen or [len(group["params"]) for group in groups] != [1] * len(before):
        return
    left = {i for i, name in enumerate(before) if name in frozen}
    optimizer["param_groups"] = _without(groups, left)
    for schedule in checkpoint.get("param_schedulers") or []:
        for key, values in schedule.items():
            # Of each group, and of the base learning rate behind them.
            if isinstance(values, list) and len(values) in (len(before), len(before) + 1):
                schedule[key] = _without(values, left)


def _without(values: list, left: set[int]) -> list[Any]:
    return [value for i, value in enumerate(values) if i not in left]
