"""AssignmentInspectorHook: watch the label assignment while a detector trains."""

from collections.abc import Mapping

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ...errors import InputError
from ...utils import tensor_to_rgb_image
from .assignment_figure import draw_assignment
from .assignment_statistics import ImageAssignment, agreement, assignment_scalars
from .recorded_assignments import recorded_assignments


@HOOKS.register_module()
class AssignmentInspectorHook(Hook):
    """Write figures and pictures of a training step's positives every so many steps.

    Works with any one-stage head that trains through an assigner, this package's and mmdet's. The
    scalars go to every visualization backend under ``assignment/``; see
    :func:`~.assignment_statistics.assignment_scalars`. Steps between are not touched.

    Args:
        interval: steps between two looks.
        pictures: whether the first image of the batch is written with its positives; see
            :func:`~misalign_det.utils.tensor_to_rgb_image` for other than three channels of uint8.
        references: mmdet's assigners to agree with on the same step, ``'atss'`` and
            ``'task_aligned'``; the latter only for assigners that see predictions.

    Example::

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
        self._watching = None
        self._images: list[ImageAssignment] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Start to watch, on the steps that count."""
        if self.every_n_train_iters(runner, self.interval):
            self._watching = recorded_assignments(_head(runner.model))
            self._images = self._watching.__enter__()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        """Write what was seen."""
        if self._watching is None:
            return
        self._watching.__exit__(None, None, None)
        self._watching = None
        images = self._images
        scalars = assignment_scalars(images)
        for reference in self.references:
            share = agreement(images, reference)
            if share is not None:
                scalars[f"agreement_{reference}"] = share
        step = runner.iter + 1
        runner.visualizer.add_scalars(
            {f"assignment/{name}": value for name, value in scalars.items()}, step=step
        )
        if self.pictures and images and data_batch is not None:
            picture = draw_assignment(
                tensor_to_rgb_image(_first_image(data_batch["inputs"])), images[0]
            )
            runner.visualizer.add_image("assignment", picture, step=step)


def _first_image(inputs) -> Tensor | None:
    """Of a batch; of several branches (semi-supervised training), of the first, the annotated one.

    Where a branch lacks an image, the batch holds None in its place.
    """
    if inputs is None or isinstance(inputs, Tensor) and inputs.ndim == 3:
        return inputs
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    return next((image for image in map(_first_image, parts) if image is not None), None)


def _head(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    model = getattr(model, "student", model)  # of a semi-supervised detector
    head = getattr(model, "bbox_head", None)
    if not hasattr(head, "assigner"):
        raise InputError(
            f"AssignmentInspectorHook: {type(head).__name__} has no assigner to look at. It takes "
            "one-stage heads that train through one, such as RetinaHead, ATSSHead and TripleHead."
        )
    return head
