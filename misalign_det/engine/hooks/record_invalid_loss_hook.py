"""Stop at a loss that is not finite, and save the training step so that it can be run again."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from ...errors import CheckpointError, NonFiniteLossError
from ...utils.old_names import register_old_name
from ..architecture import unwrap_model
from ..checkpoint import read_checkpoint
from ..step_state import (
    at_counters,
    autocast,
    autocast_dtype,
    random_states,
    restore_random_states,
    training_counters,
)
from .atomic_checkpoint_hook import last_good_checkpoint

_FIELDS = ("bboxes", "labels")
_PREFIX = "non_finite_step_"  # of the names of records
_TOOL = "tools/analysis/replay_step.py"


@HOOKS.register_module()
class RecordInvalidLossHook(Hook):
    """Stop the run at a loss that is NaN or infinite, before it changes the weights.

    It adds to mmdet's ``CheckInvalidLossHook``:

    - Every step is checked before its gradients are computed. mmdet's hook checks every
      ``interval`` steps, after the optimizer has updated the weights.
    - The error names each loss that is not finite, its value, and the images of the batch.
    - The batch, the weights before the step, the random states, the progress of the training and
      the type of mixed precision are saved as ``WORK_DIR/non_finite_step_N.pth``, so that
      :func:`replay` and ``tools/analysis/replay_step.py`` can run the step again.

    With several processes, the process with the loss saves its own share of the batch and exits;
    the launcher ends the others. The hook has no arguments. During training it replaces the
    model's ``parse_losses``.

    Raises:
        NonFiniteLossError: in the training step.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        custom_hooks = [dict(type='RecordInvalidLossHook')]
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._batch: Any = None
        self._random: dict | None = None
        self._device: str | None = None
        self._autocast: str | None = None
        self._handle: Any = None

    def before_train(self, runner: Runner) -> None:
        """Wrap the model's ``parse_losses``, which is called before the backward pass.

        It is called outside of autocast; what that is, is kept as each forward pass begins.

        Args:
            runner: its model is changed in place.
        """
        model = unwrap_model(runner.model)
        original = model.parse_losses

        def parse_losses(losses: dict) -> tuple[torch.Tensor, dict]:
            total, log_vars = original(losses)
            if not torch.isfinite(total):
                self._stop(runner, log_vars)
            return total, log_vars

        def keep_autocast(model: nn.Module, args: tuple) -> None:
            self._device = next((p.device.type for p in model.parameters()), "cpu")
            self._autocast = autocast_dtype(self._device)

        model.parse_losses = parse_losses
        self._handle = model.register_forward_pre_hook(keep_autocast)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch and the random states with which the step starts.

        Args:
            runner: not used.
            batch_idx: not used.
            data_batch: of the dataloader.
        """
        self._batch, self._random = data_batch, random_states()

    def after_train(self, runner: Runner) -> None:
        """Restore the model's ``parse_losses``.

        Args:
            runner: its model is changed in place.
        """
        vars(unwrap_model(runner.model)).pop("parse_losses", None)
        if self._handle is not None:
            self._handle.remove()

    def _stop(self, runner: Runner, log_vars: dict) -> None:
        bad = {name: float(value.detach()) for name, value in log_vars.items()
               if name != "loss" and not torch.isfinite(value).all()}  # fmt: skip
        bad = bad or {"loss": float(log_vars["loss"].detach())}  # all finite, their sum is not
        rank = f"_rank{get_rank()}" if get_rank() else ""
        path = Path(runner.work_dir) / f"{_PREFIX}{runner.iter + 1}{rank}.pth"
        batch: dict = self._batch if isinstance(self._batch, dict) else {}
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
                    state_dict=unwrap_model(runner.model).state_dict(),
                    random=self._random,
                    counters=training_counters(),
                    device=self._device,
                    autocast=self._autocast,
                ),
                path,
            )
            record = f"The step is saved in {path}: run it again by {_TOOL} CONFIG {path}."
        except (OSError, RuntimeError) as error:  # the loss is still the error to report
            path.unlink(missing_ok=True)
            record = f"The step could not be saved in {path}: {error}"
        last = last_good_checkpoint(runner.work_dir)
        kept = (
            f"the last checkpoint, {last}, is intact"
            if last
            else f"there is no checkpoint in {runner.work_dir} yet"
        )
        raise NonFiniteLossError(
            f"{what} No weight was updated, and {kept}. {record} Usual "
            "causes: a learning rate that is too high, no optim_wrapper.clip_grad, boxes without "
            "area, float16."
        )


register_old_name(HOOKS, "FiniteLossHook", RecordInvalidLossHook)


def is_record(path: str | Path) -> bool:
    """Whether a file is a step that :class:`RecordInvalidLossHook` saved, by its name.

    Args:
        path: of a file in a work dir. Beside it are checkpoints.
    """
    return Path(path).name.startswith(_PREFIX)


def read_record(filename: str, trust: bool | None = None) -> dict:
    """Read a step that :class:`RecordInvalidLossHook` saved.

    Args:
        filename: ``non_finite_step_N.pth`` of a work dir.
        trust: see :func:`~misalign_det.engine.checkpoint.tensors_only`.

    Returns:
        ``iter``, ``losses`` (floats by name), ``inputs``, ``samples``, ``state_dict``, ``random``
        and, but for those of older versions, ``counters``, ``device`` and ``autocast``.

    Raises:
        CheckpointError: the file is missing, unsafe or damaged, or contains something else.
    """
    if not Path(filename).expanduser().is_file():
        raise CheckpointError(
            f"there is no saved step {filename}. RecordInvalidLossHook writes one, "
            "WORK_DIR/non_finite_step_N.pth, when a loss is not finite."
        )
    record = read_checkpoint(filename, trust)
    if not {"inputs", "samples", "state_dict", "random", "losses"} <= set(record):
        raise CheckpointError(f"{filename} is not a step that RecordInvalidLossHook saved.")
    return record


def image_names(record: dict) -> list[str]:
    """Paths of a saved step's images.

    Args:
        record: from :func:`read_record`.

    Returns:
        Each path once.
    """
    return list(dict.fromkeys(_leaves(_converted(_samples(record["samples"]), _name))))


def replay(model: BaseDetector, record: dict, device: str = "cpu") -> dict[str, float]:
    """Compute the losses of a saved step again, as mixed and as far in the training as it was.

    A record of an older version holds neither; a warning is logged.

    Args:
        model: built from the config of the run; its weights are overwritten.
        record: from :func:`read_record`.
        device: where to run. On another kind of device the losses may differ from the run's.

    Returns:
        Each loss by name.
    """
    if "autocast" not in record:
        print_log(
            "The record is of an older version, without the type of mixed precision and the "
            "progress of the training. The step runs without both, and its losses may differ.",
            logger="current",
            level=logging.WARNING,
        )
    model.load_state_dict(record["state_dict"])
    model.to(device).train()
    restore_random_states(record["random"], device)
    batch = dict(inputs=record["inputs"], data_samples=_samples(record["samples"]))
    with at_counters(record.get("counters", training_counters())):
        with autocast(device, record.get("autocast")):
            losses = model(**model.data_preprocessor(batch, True), mode="loss")
        _, log_vars = model.parse_losses(losses)
    return {name: float(value.detach()) for name, value in log_vars.items()}


def _converted(batch: Any, convert: Callable) -> Any:
    """The same nested lists and dicts (branches, views) with each image or sample converted."""
    if isinstance(batch, Mapping):
        return {name: _converted(part, convert) for name, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_converted(part, convert) for part in batch]
    return batch if batch is None else convert(batch)  # None: the image lacks this branch


def _leaves(batch: Any) -> list:
    if isinstance(batch, dict):
        batch = list(batch.values())
    if isinstance(batch, list):
        return [leaf for part in batch for leaf in _leaves(part)]
    return [] if batch is None else [batch]


def _name(sample: Any) -> str:
    return str(getattr(sample, "metainfo", {}).get("img_path", "an image without a path"))


def _plain(value: Any) -> Any:
    """An image or data sample as tensors and built-in types, which load without running code.

    Of a sample's instances, boxes and labels are kept.
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
    """Built-in types and tensors; `_samples` turns those tensors into arrays again."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_python(part) for part in value)
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _samples(parts: Any) -> Any:
    """Data samples from the output of `_converted` with `_plain`."""
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
