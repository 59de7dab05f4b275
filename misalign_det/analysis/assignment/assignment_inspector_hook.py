"""AssignmentInspectorHook: figures and pictures of the label assignment during training."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
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
        pictures: whether the first image of the batch is written with its positives; see
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
        self._recording: AbstractContextManager[list[ImageAssignment]] | None = None
        self._images: list[ImageAssignment] = []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any] | None = None
    ) -> None:
        """Start to record, at every ``interval``-th step and at the last one."""
        last = runner.iter + 1 == runner.max_iters
        if last or self.every_n_train_iters(runner, self.interval):
            self._recording = recorded_assignments(_head(runner.model))
            self._images = self._recording.__enter__()

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
        self._recording.__exit__(None, None, None)
        self._recording = None
        images = self._images
        scalars = assignment_scalars(images)
        for reference in self.references:
            share = agreement(images, reference)
            if share is not None:
                scalars[f"agreement_{reference}"] = share
        step = runner.iter + 1
        scalars["step"] = step
        runner.visualizer.add_scalars(
            {f"assignment/{name}": value for name, value in scalars.items()}, step=step
        )
        first = None if data_batch is None else _first_image(data_batch["inputs"])
        if self.pictures and images and first is not None:
            # Here, so that a config that names misalign_det does not load what only drawing needs.
            from .assignment_figure import draw_assignment

            picture = draw_assignment(tensor_to_rgb_image(first), images[0])
            runner.visualizer.add_image("assignment", picture, step=step)


def _first_image(inputs: Any) -> Tensor | None:
    """The first image of a batch.

    In semi-supervised training a batch has several branches, the annotated one first; an image that
    a branch lacks is None.
    """
    if inputs is None or isinstance(inputs, Tensor) and inputs.ndim == 3:
        return inputs
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    return next((image for image in map(_first_image, parts) if image is not None), None)


def _head(model: nn.Module) -> BaseDenseHead:
    detector: Any = model
    while is_model_wrapper(detector):
        detector = detector.module
    detector = getattr(detector, "student", detector)  # of a semi-supervised detector
    head = getattr(detector, "bbox_head", None)
    if not hasattr(head, "assigner"):
        raise InputError(
            f"AssignmentInspectorHook: {type(head).__name__} has no assigner. It takes one-stage "
            "heads with an assigner, such as RetinaHead, ATSSHead and TripleHead."
        )
    return head
