"""A training step whose loss is not finite stops, says why, and can be run again."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

from ...errors import CheckpointError, NonFiniteLossError
from ...utils.renamed import register_old_name
from ..checkpoint import read_checkpoint

_FIELDS = ("bboxes", "labels")
_TOOL = "tools/analysis/replay_step.py"


@HOOKS.register_module()
class RecordInvalidLossHook(Hook):
    """Stop before the step in which a loss is NaN or infinite spoils the weights.

    The error names each such loss, and the images of the batch. The batch, the weights before the
    step and the random states are saved, so that :func:`replay` (``tools/analysis/replay_step.py``)
    runs that step again. With several processes the one that meets it saves its part and ends; the
    launcher ends the others.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        custom_hooks = [dict(type='RecordInvalidLossHook')]
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._batch = None
        self._random = None

    def before_train(self, runner: Runner) -> None:
        """Look at the losses where the model joins them, before their gradients."""
        model = _unwrapped(runner.model)
        original = model.parse_losses

        def parse_losses(losses: dict) -> tuple[torch.Tensor, dict]:
            total, log_vars = original(losses)
            if not torch.isfinite(total):
                self._stop(runner, log_vars)
            return total, log_vars

        model.parse_losses = parse_losses

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
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
        batch = self._batch if isinstance(self._batch, dict) else {}
        images = dict.fromkeys(_leaves(_converted(batch.get("data_samples"), _name)))
        values = ", ".join(f"{name} = {value}" for name, value in bad.items())
        what = f"step {runner.iter + 1}: {values}. Images: {', '.join(images) or 'unknown'}."
        try:
            torch.save(
                dict(
                    iter=runner.iter,
                    losses={name: float(value.detach()) for name, value in log_vars.items()},
                    inputs=_converted(batch.get("inputs"), _plain),
                    samples=_converted(batch.get("data_samples"), _plain),
                    state_dict=_unwrapped(runner.model).state_dict(),
                    random=self._random,
                ),
                path,
            )
            record = f"The step is saved in {path}: run it again by {_TOOL} CONFIG {path}."
        except (OSError, RuntimeError) as error:  # the loss is what the user has to hear of
            path.unlink(missing_ok=True)
            record = f"The step could not be saved in {path}: {error}"
        raise NonFiniteLossError(
            f"{what} Nothing was updated; the last checkpoint stands. {record} Usual causes: a "
            "learning rate that is too high, no optim_wrapper.clip_grad, boxes without area, "
            "float16 without need."
        )


register_old_name(HOOKS, "FiniteLossHook", RecordInvalidLossHook)


def read_record(filename: str, trust: bool | None = None) -> dict:
    """Read the step that :class:`RecordInvalidLossHook` saved.

    Args:
        filename: ``non_finite_step_N.pth`` of a work dir.
        trust: see :func:`~misalign_det.engine.checkpoint.tensors_only`.

    Raises:
        CheckpointError: the file is missing, unsafe or damaged, or holds something else.
    """
    if not Path(filename).expanduser().is_file():
        raise CheckpointError(
            f"there is no saved step {filename}. RecordInvalidLossHook writes one, "
            "WORK_DIR/non_finite_step_N.pth, when a loss is not finite."
        )
    record = read_checkpoint(filename, trust)
    if not {"inputs", "samples", "state_dict", "random", "losses"} <= set(record):
        raise CheckpointError(f"{filename} is no step that RecordInvalidLossHook saved.")
    return record


def image_names(record: dict) -> list[str]:
    """Paths of a saved step's images.

    Args:
        record: from :func:`read_record`.
    """
    return list(dict.fromkeys(_leaves(_converted(_samples(record["samples"]), _name))))


def replay(model: nn.Module, record: dict, device: str = "cpu") -> dict[str, float]:
    """Run a saved step's losses again.

    Args:
        model: built from the config of the run.
        record: from :func:`read_record`.
        device: to run on; other numbers than the run's are possible on another kind of device.

    Returns:
        Each loss by name.
    """
    model.load_state_dict(record["state_dict"])
    model.to(device).train()
    _restore(record["random"])
    batch = dict(inputs=record["inputs"], data_samples=_samples(record["samples"]))
    losses = model(**model.data_preprocessor(batch, True), mode="loss")
    _, log_vars = model.parse_losses(losses)
    return {name: float(value.detach()) for name, value in log_vars.items()}


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    return model


def _converted(batch: Any, convert: Callable) -> Any:
    """The same nested lists and dicts (branches, views), with each image or sample converted."""
    if isinstance(batch, Mapping):
        return {name: _converted(part, convert) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_converted(part, convert) for part in batch]
    return batch if batch is None else convert(batch)  # None: an image without that branch


def _leaves(batch: Any) -> list:
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list):
        return [leaf for part in batch for leaf in _leaves(part)]
    return [] if batch is None else [batch]


def _name(sample: Any) -> str:
    return str(getattr(sample, "metainfo", {}).get("img_path", "an image without a path"))


def _plain(value: Any) -> Any:
    """An image or data sample in tensors and Python's own types, which load without running code.

    Of a sample's instances boxes and labels are kept.
    """
    if not hasattr(value, "metainfo"):
        return value.cpu() if isinstance(value, torch.Tensor) else _python(value)
    parts = {}
    for name in ("gt_instances", "ignored_instances"):
        if name in value:
            found = getattr(value, name)
            parts[name] = {
                key: getattr(found[key], "tensor", found[key]).cpu()
                for key in _FIELDS
                if key in found
            }
    return dict(meta={key: _python(item) for key, item in value.metainfo.items()}, **parts)


def _python(value: Any) -> Any:
    """Arrays become tensors; `_samples` makes arrays of them again."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_python(part) for part in value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _samples(parts: Any) -> Any:
    """Data samples from what `_converted` and `_plain` made of them."""
    if isinstance(parts, list):
        return [_samples(part) for part in parts]
    if not isinstance(parts, dict):
        return parts
    if not isinstance(parts.get("meta"), dict):
        return {branch: _samples(part) for branch, part in parts.items()}
    arrays = {key: value.numpy() for key, value in parts["meta"].items()
              if isinstance(value, torch.Tensor)}  # fmt: skip
    sample = DetDataSample(metainfo={**parts["meta"], **arrays})
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
