"""AssignmentInspectorHook: watch the label assignment while a detector trains."""

from contextlib import contextmanager

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..evaluation.assignment_statistics import ImageAssignment, agreement, assignment_scalars
from ..models.dense_heads.loss_aware_head import LossAwareFCOSHead
from ..models.task_modules.edge_assigner import EdgeAssigner
from ..visualization.assignment import draw_assignment
from .annotation_checks import InputError


@HOOKS.register_module()
class AssignmentInspectorHook(Hook):
    """Write figures and pictures of a training step's positives every so many steps.

    Works with any one-stage head that trains through an assigner, this package's and mmdet's. The
    scalars go to every visualization backend under ``assignment/``; see
    :func:`~misalign_det.evaluation.assignment_statistics.assignment_scalars`. Steps between are not
    touched.

    Args:
        interval: steps between two looks.
        pictures: whether the first image of the batch is written with its positives.
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
            pixels = data_batch["inputs"][0].permute(1, 2, 0).cpu().numpy()
            picture = draw_assignment(pixels[..., ::-1], images[0])
            runner.visualizer.add_image("assignment", picture, step=step)


def _head(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    head = getattr(model, "bbox_head", None)
    if not hasattr(head, "assigner"):
        raise InputError(
            f"AssignmentInspectorHook: {type(head).__name__} has no assigner to look at. It takes "
            "one-stage heads that train through one, such as RetinaHead, ATSSHead and TripleHead."
        )
    return head


@contextmanager
def recorded_assignments(head: nn.Module):
    """Within the block, what the head's assigner decides is appended to the list given.

    Args:
        head: a dense head with ``assigner``.
    """
    assigner, images = head.assigner, []
    # This package's heads hand the whole batch over; others an image at a time.
    batch = isinstance(assigner, EdgeAssigner) and isinstance(head, LossAwareFCOSHead)
    name = "assign_batch" if batch else "assign"
    original = getattr(assigner, name)

    def watched(*args, **kwargs):
        result = original(*args, **kwargs)
        read = _read_batch if batch else _read_image
        images.extend(read(head, result, *args, **kwargs))
        return result

    setattr(assigner, name, watched)
    try:
        yield images
    finally:
        delattr(assigner, name)


@torch.no_grad()
def _read_batch(head, edges, points, strides, logits, bboxes, gts) -> list[ImageAssignment]:
    prior_inds, gt_inds, _ = edges.nonzero()
    strides = torch.ones_like(points[:, 0]) if strides is None else strides
    images = []
    for i in range(gts.num_images):
        own = gts.image_inds == i
        first = int((gts.image_inds < i).sum())
        here = own[gt_inds]
        images.append(
            ImageAssignment(
                points.float(),
                strides,
                gts.bboxes[own],
                gts.labels[own],
                prior_inds[here] - i * len(points),
                gt_inds[here] - first,
                logits[i].float().sigmoid(),
                bboxes[i].float(),
                edges.thresholds[own],
                edges.losses[own],
            )
        )
    return images


@torch.no_grad()
def _read_image(head, result, pred_instances, *args, gt_instances=None, **kwargs):
    if gt_instances is None:  # MaxIoUAssigner and most: the next argument; ATSSAssigner: the third
        gt_instances = next(a for a in args if hasattr(a, "bboxes"))
    points, strides = _locations(head, pred_instances.priors)
    positive = (result.gt_inds > 0).nonzero().squeeze(1)
    scores = pred_instances.get("scores")
    if scores is not None and (scores.min() < 0 or scores.max() > 1):  # some heads hand logits over
        scores = scores.sigmoid()
    return [
        ImageAssignment(
            points,
            strides,
            getattr(gt_instances.bboxes, "tensor", gt_instances.bboxes),
            gt_instances.labels,
            positive,
            result.gt_inds[positive] - 1,
            scores,
            pred_instances.get("bboxes"),
        )
    ]


def _locations(head: nn.Module, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and strides of priors that are points ``(x, y, stride, stride)`` or xyxy anchors."""
    if priors.shape[1] != 4 or not hasattr(head.prior_generator, "octave_base_scale"):
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else torch.ones_like(priors[:, 0])
    sides = (priors[:, 2:] - priors[:, :2]).clamp(min=1e-6)
    base = head.prior_generator.octave_base_scale or 1
    octave = (sides.prod(1).sqrt() / base).log2()
    # An octave has several scales, the level's own one first; rounding must not fall below it.
    return (priors[:, :2] + priors[:, 2:]) / 2, 2 ** (octave + 1e-3).floor()
