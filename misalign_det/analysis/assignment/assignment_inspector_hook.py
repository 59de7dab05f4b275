"""AssignmentInspectorHook: figures and pictures of the label assignment during training."""

from contextlib import ExitStack
from typing import Any

import numpy as np
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ...errors import InputError
from ...utils import tensor_to_rgb_image
from .assignment_statistics import ImageAssignment, agreement, assignment_scalars
from .recorded_assignments import recorded_assignments


@HOOKS.register_module()
class AssignmentInspectorHook(Hook):
    """Write figures and a picture of the positives every ``interval`` steps, and at the last one.

    For any one-stage head with an assigner, this package's and mmdet's. The scalars of
    :func:`~.assignment_statistics.assignment_scalars`, and ``agreement_atss`` and
    ``agreement_task_aligned``, go to every visualization backend under ``assignment/``, the picture
    as ``assignment``. Other steps are not changed. A run shorter than ``interval`` has its last
    step.

    ``LocalVisBackend`` writes the scalars to ``vis_data/scalars.json`` and the pictures to
    ``vis_data/vis_image``, in the run's folder. ``TensorboardVisBackend`` (``pip install
    tensorboard``) shows them in the tabs Scalars and Images. ``WandbVisBackend`` (``pip install
    wandb``) shows them as charts and media; mmengine passes it no step, so its charts need
    ``assignment/step``, the training step, as their axis::

        vis_backends = [
            dict(type='LocalVisBackend'),
            dict(type='TensorboardVisBackend'),
            dict(
                type='WandbVisBackend',
                define_metric_cfg=[dict(name='assignment/*', step_metric='assignment/step')],
            ),
        ]
        visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')

    Args:
        interval: recorded is every ``interval``-th step, counted from 1, and the last.
        pictures: whether the first image of the batch that has objects is written with its
            positives, as the network gets it: resized and padded, but in its own colours. See
            :func:`~misalign_det.utils.tensor_to_rgb_image` for inputs other than uint8 with three
            channels.
        references: mmdet's assigners to compare with on the same step, ``'atss'`` and
            ``'task_aligned'``; the latter only for assigners that get predictions.

    Raises:
        ValueError: ``interval`` is below 1, or a reference is unknown.
        InputError: at the first recorded step, if the head has no assigner.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        custom_hooks = [dict(type='AssignmentInspectorHook', interval=50)]
    """

    def __init__(
        self,
        interval: int = 50,
        pictures: bool = True,
        references: tuple[str, ...] = ("atss", "task_aligned"),
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval must be at least 1, not {interval}.")
        unknown = set(references) - {"atss", "task_aligned"}
        if unknown:
            raise ValueError(f"references are 'atss' and 'task_aligned', not {sorted(unknown)}.")
        self.interval = interval
        self.pictures = pictures
        self.references = tuple(references)
        self._recording: ExitStack | None = None
        self._images: list[ImageAssignment] = []
        self._inputs: list[Tensor] = []  # of each forward pass

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Start to record, at every ``interval``-th step and at the last one."""
        last = runner.iter + 1 == runner.max_iters
        if last or self.every_n_train_iters(runner, self.interval):
            detector = _detector(runner.model)
            recording = recorded_assignments(_head(detector))
            self._recording, self._inputs = ExitStack(), []
            self._images = self._recording.enter_context(recording)
            if self.pictures and isinstance(getattr(detector, "backbone", None), nn.Module):
                # The batch as it is after the preprocessor, which may resize it.
                seen = detector.backbone.register_forward_pre_hook(self._keep_inputs)
                self._recording.callback(seen.remove)

    def _keep_inputs(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            self._inputs.append(args[0].detach())

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Write what was recorded."""
        if self._recording is None:
            return
        self._recording.close()
        self._recording = None
        images = self._images
        step = runner.iter + 1
        if not images:
            MMLogger.get_current_instance().warning(
                f"AssignmentInspectorHook: nothing was recorded at step {step}: the head did not "
                "call its assigner. It may do so only for images with objects."
            )
        scalars = assignment_scalars(images)
        for reference in self.references:
            share = agreement(images, reference)
            if share is not None:
                scalars[f"agreement_{reference}"] = share
        scalars["step"] = step
        runner.visualizer.add_scalars(
            {f"assignment/{name}": value for name, value in scalars.items()}, step=step
        )
        picture = self._picture(runner.model)
        if picture is not None:
            runner.visualizer.add_image("assignment", picture, step=step)
        self._images, self._inputs = [], []

    def _picture(self, model: nn.Module) -> np.ndarray | None:
        """Of the first image with objects; ``None`` where there is none, or it is not known."""
        known = [
            image
            for image in self._images
            if image.image is not None
            and image.forward is not None
            and image.forward < len(self._inputs)
            and image.image < len(self._inputs[image.forward])
        ]
        if not known:
            return None
        # Here, so that a config that names misalign_det does not load what only drawing needs.
        from .assignment_figure import draw_assignment

        first = next((image for image in known if len(image.gt_bboxes)), known[0])
        pixels = self._inputs[first.forward][first.image]  # type: ignore[index]  # both are known
        return draw_assignment(tensor_to_rgb_image(_as_loaded(pixels, model)), first)


def _as_loaded(pixels: Tensor, model: nn.Module) -> Tensor:
    """An image of a batch, ``(C, h, w)``, with the values and the channels before the preprocessor.

    Args:
        pixels: after the preprocessor.
        model: with the preprocessor.
    """
    preprocessor: Any = getattr(_unwrapped(model), "data_preprocessor", None)
    # That of semi-supervised training holds the one of each branch.
    preprocessor = getattr(preprocessor, "data_preprocessor", preprocessor)
    pixels = pixels.float()
    if getattr(preprocessor, "_enable_normalize", False):
        pixels = pixels * preprocessor.std.to(pixels) + preprocessor.mean.to(pixels)
        if pixels.min() > -0.01 and pixels.max() < 255.01:
            pixels = pixels.clamp(0, 255)  # rounding
    if getattr(preprocessor, "_channel_conversion", False) and len(pixels) == 3:
        pixels = pixels.flip(0)
    return pixels


def _unwrapped(model: nn.Module) -> Any:
    detector: Any = model
    while is_model_wrapper(detector):
        detector = detector.module
    return detector


def _detector(model: nn.Module) -> Any:
    detector = _unwrapped(model)
    return getattr(detector, "student", detector)  # of a semi-supervised detector


def _head(detector: Any) -> BaseDenseHead:
    head = getattr(detector, "bbox_head", None)
    if not hasattr(head, "assigner"):
        raise InputError(
            f"AssignmentInspectorHook: {type(head).__name__} has no assigner. It takes one-stage "
            "heads with an assigner, such as RetinaHead, ATSSHead and TripleHead."
        )
    return head
