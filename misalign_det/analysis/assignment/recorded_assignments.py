"""What a head's assigner decides while the head trains, whichever assigner it is."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...models.dense_heads.loss_aware_fcos_head import LossAwareFCOSHead
from ...models.task_modules.assigners.batch_assigner import BatchAssigner
from .assignment_statistics import ImageAssignment


@contextmanager
def recorded_assignments(head: nn.Module):
    """Within the block, what the head's assigner decides is appended to the list given.

    Args:
        head: a dense head with ``assigner``.
    """
    assigner, images = head.assigner, []
    # This package's heads hand the whole batch over; others an image at a time.
    batch = isinstance(assigner, BatchAssigner) and isinstance(head, LossAwareFCOSHead)
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
                edges.means[own],
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
