"""A training step whose loss is not finite stops, says why, and can be run again."""

import random
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

_FIELDS = ("bboxes", "labels")


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the message names it, the images and the record."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop before the step in which a loss is NaN or infinite spoils the weights.

    The error names each such loss, and the images of the batch. The batch, the weights before the
    step and the random states are saved, so that :func:`replay` (``tools/analysis/replay_step.py``)
    runs that step again. With several processes the one that meets it saves its part and ends; the
    launcher ends the others.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        custom_hooks = [dict(type='FiniteLossHook')]
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._batch = None
        self._random = None

    def before_train(self, runner: Runner) -> None:
        """Look at the losses where the model joins them, before their gradients."""
        model = _unwrapped(runner.model)
        original = model.parse_losses

        def parse_losses(losses):
            total, log_vars = original(losses)
            if not torch.isfinite(total):
                self._stop(runner, log_vars)
            return total, log_vars

        model.parse_losses = parse_losses

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Note what the step starts from."""
        self._batch, self._random = data_batch, _random_states()

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        vars(_unwrapped(runner.model)).pop("parse_losses", None)

    def _stop(self, runner: Runner, log_vars: dict) -> None:
        bad = {name: float(value.detach()) for name, value in log_vars.items()
               if name != "loss" and not torch.isfinite(value).all()}  # fmt: skip
        bad = bad or {"loss": float(log_vars["loss"].detach())}  # finite ones whose sum is not
        rank = f"_rank{get_rank()}" if get_rank() else ""
        path = Path(runner.work_dir) / f"non_finite_step_{runner.iter + 1}{rank}.pth"
        images = [str(sample.metainfo.get("img_path", "an image without a path"))
                  for sample in self._batch["data_samples"]]  # fmt: skip
        torch.save(
            dict(
                iter=runner.iter,
                losses={name: float(value.detach()) for name, value in log_vars.items()},
                inputs=[image.cpu() for image in self._batch["inputs"]],
                samples=[_plain(sample) for sample in self._batch["data_samples"]],
                state_dict=_unwrapped(runner.model).state_dict(),
                random=self._random,
            ),
            path,
        )
        values = ", ".join(f"{name} = {value}" for name, value in bad.items())
        raise NonFiniteLossError(
            f"step {runner.iter + 1}: {values}. Images: {', '.join(images)}. Nothing was updated; "
            f"the last checkpoint stands. The step is saved in {path}: run it again by "
            f"tools/analysis/replay_step.py CONFIG {path}. Usual causes: a learning rate that is "
            "too high, no optim_wrapper.clip_grad, boxes without area, float16 without need."
        )


def replay(model: nn.Module, record: dict, device: str = "cpu") -> dict[str, float]:
    """Run a saved step's losses again.

    Args:
        model: built from the config of the run.
        record: what :class:`FiniteLossHook` saved, loaded by ``torch.load``.
        device: to run on; other numbers than the run's are possible on another kind of device.

    Returns:
        Each loss by name.
    """
    model.load_state_dict(record["state_dict"])
    model.to(device).train()
    _restore(record["random"])
    batch = dict(inputs=record["inputs"], data_samples=[_sample(s) for s in record["samples"]])
    losses = model(**model.data_preprocessor(batch, True), mode="loss")
    _, log_vars = model.parse_losses(losses)
    return {name: float(value.detach()) for name, value in log_vars.items()}


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    return model


def _plain(sample: DetDataSample) -> dict:
    """A data sample in tensors and Python's own types, which load without running code."""
    parts = {}
    for name in ("gt_instances", "ignored_instances"):
        if name in sample:
            found = getattr(sample, name)
            parts[name] = {
                key: getattr(found[key], "tensor", found[key]).cpu()
                for key in _FIELDS
                if key in found
            }
    return dict(meta={key: _python(value) for key, value in sample.metainfo.items()}, **parts)


def _python(value):
    if isinstance(value, (list, tuple)):
        return tuple(_python(part) for part in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _python(value.tolist())
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _sample(parts: dict) -> DetDataSample:
    sample = DetDataSample(metainfo=parts["meta"])
    for name in ("gt_instances", "ignored_instances"):
        if name in parts:
            setattr(sample, name, InstanceData(**parts[name]))
    return sample


def _random_states() -> dict:
    kind, keys, *rest = np.random.get_state()
    state = random.getstate()
    return dict(
        torch=torch.get_rng_state(),
        numpy=(kind, keys.tolist(), *rest),
        python=(state[0], list(state[1]), state[2]),
    )


def _restore(states: dict) -> None:
    torch.set_rng_state(states["torch"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
