"""Records what the assigner of a head returns during training, for any assigner."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.assigners import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor

from ...models.dense_heads.loss_aware_fcos_head import LossAwareFCOSHead
from ...models.task_modules.assigners.ambiguity import BatchAssignResult
from ...models.task_modules.assigners.batch_assigner import BatchAssigner
from ...models.task_modules.assigners.candidates import BatchGroundTruth
from .assignment_statistics import ImageAssignment


@contextmanager
def recorded_assignments(head: BaseDenseHead) -> Iterator[list[ImageAssignment]]:
    """Record the assignments of a head within a ``with`` block.

    Args:
        head: a dense head with ``assigner``. TOOD's ``alignment_assigner``, which takes its place
            after the first epochs, is recorded too.

    Yields:
        A list to which each assigned image is appended.
    """
    images: list[ImageAssignment] = []
    batches: list[Any] = []  # the GTs of the images of each forward pass
    # This package's heads assign the whole batch at once, others one image at a time.
    batch = isinstance(head.assigner, BatchAssigner) and isinstance(head, LossAwareFCOSHead)
    name = "assign_batch" if batch else "assign"
    signature = inspect.signature(head.loss_by_feat)
    loss_by_feat = head.loss_by_feat

    def begun(*args: Any, **kwargs: Any) -> Any:
        batches.append(signature.bind(*args, **kwargs).arguments.get("batch_gt_instances"))
        return loss_by_feat(*args, **kwargs)

    def watched(original: Callable) -> Callable:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            read = _read_batch if batch else _read_image
            found = read(head, result, *args, **kwargs)
            for index, image in enumerate(found):
                image.forward = len(batches) - 1 if batches else None
                # Some heads assign no image without objects: the order does not tell the index.
                image.image = index if batch else _index(image, batches)
            images.extend(found)
            return result

        return recorded

    with ExitStack() as stack:
        stack.enter_context(_replaced(head, "loss_by_feat", begun))
        for assigner in (head.assigner, getattr(head, "alignment_assigner", None)):
            if assigner is not None:
                wrapped = watched(getattr(assigner, name))
                stack.enter_context(_replaced(assigner, name, wrapped))
        yield images


@contextmanager
def _replaced(owner: Any, name: str, method: Callable) -> Iterator[None]:
    """A method of one object replaced within a ``with`` block."""
    kept = {key: value for key, value in vars(owner).items() if key == name}
    setattr(owner, name, method)
    try:
        yield
    finally:
        delattr(owner, name)
        vars(owner).update(kept)


def _index(image: ImageAssignment, batches: list[Any]) -> int | None:
    """Index of the image in the last batch, by its GTs, which heads pass on as they get them."""
    for index, gts in enumerate(batches[-1] or ()) if batches else ():
        if getattr(gts.bboxes, "tensor", gts.bboxes) is image.gt_bboxes:
            return index
    return None


@torch.no_grad()
def _read_batch(
    head: LossAwareFCOSHead,
    result: BatchAssignResult,
    points: Tensor,
    strides: Tensor | None,
    logits: Tensor,
    bboxes: Tensor,
    gts: BatchGroundTruth,
) -> list[ImageAssignment]:
    """The images of a batch from the arguments and the result of ``BatchAssigner.assign_batch``."""
    prior_inds, gt_inds, _ = result.nonzero()
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
                result.thresholds[own],
                None if result.means is None else result.means[own],
            )
        )
    return images


@torch.no_grad()
def _read_image(
    head: BaseDenseHead,
    result: AssignResult,
    pred_instances: InstanceData,
    *args: Any,
    gt_instances: InstanceData | None = None,
    **kwargs: Any,
) -> list[ImageAssignment]:
    """One image from the arguments and the result of an mmdet assigner's ``assign``."""
    if gt_instances is None:  # the second positional argument, ATSSAssigner's third
        gt_instances = next(a for a in args if hasattr(a, "bboxes"))
    points, strides = _locations(head, pred_instances.priors)
    positive = (result.gt_inds > 0).nonzero().squeeze(1)
    scores = pred_instances.get("scores")
    if scores is not None and (scores.min() < 0 or scores.max() > 1):  # some heads pass logits
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


def _locations(head: BaseDenseHead, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and strides of priors that are points ``(x, y, stride, stride)`` or xyxy anchors."""
    if priors.shape[1] != 4 or not hasattr(head.prior_generator, "octave_base_scale"):
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else torch.ones_like(priors[:, 0])
    sides = (priors[:, 2:] - priors[:, :2]).clamp(min=1e-6)
    base = head.prior_generator.octave_base_scale or 1
    octave = (sides.prod(1).sqrt() / base).log2()
    # An octave has several scales, the level's own is the smallest; 1e-3 absorbs rounding.
    return (priors[:, :2] + priors[:, 2:]) / 2, 2 ** (octave + 1e-3).floor()
