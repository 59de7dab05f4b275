"""Figures about one step's label assignment, whichever assigner made it."""

from dataclasses import dataclass

import torch
from mmdet.models.task_modules.assigners import ATSSAssigner, TaskAlignedAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from ..spatial_gap import SIZES, size_class

ANCHOR_SCALE = 8  # side of ATSS's anchors in strides


@dataclass
class ImageAssignment:
    """The positives of one image.

    Attributes:
        points, strides: locations in pixels, ``(P, 2)``, and their level's stride, ``(P,)``.
        gt_bboxes, gt_labels: xyxy in pixels, ``(G, 4)``, and ``(G,)``.
        prior_inds, gt_inds: the positives; a location may serve several GTs, ``(E,)`` each.
        scores, bboxes: class probabilities ``(P, C)`` and predicted boxes ``(P, 4)``, or ``None``
            where the assigner sees none.
        thresholds: largest positive cost of each GT, ``(G,)``; ``None`` without a mixture.
        means: of the two components of each GT's mixture, the low one first, ``(G, 2)``; likewise.
    """

    points: Tensor
    strides: Tensor
    gt_bboxes: Tensor
    gt_labels: Tensor
    prior_inds: Tensor
    gt_inds: Tensor
    scores: Tensor | None = None
    bboxes: Tensor | None = None
    thresholds: Tensor | None = None
    means: Tensor | None = None

    def pairs(self) -> set[tuple[int, int]]:
        """The positives as (location, GT)."""
        return set(zip(self.prior_inds.tolist(), self.gt_inds.tolist()))


def assignment_scalars(images: list[ImageAssignment]) -> dict[str, float]:
    """Figures of one step.

    Args:
        images: of the batch.

    Returns:
        ``positives_per_gt`` and the same for each size class that occurs; ``level_S``: share of the
        positives on the level of stride S; ``ambiguous``: share of the positive locations that lie
        in more than one GT box; ``without_positive``: share of GTs that have none; with a mixture,
        ``threshold``, ``low_mean`` and ``high_mean``: its boundary and the means of its components,
        averaged over the GTs.
    """
    counts, sizes, levels, several = [], [], [], []
    for image in images:
        num = len(image.gt_bboxes)
        counts.append(torch.bincount(image.gt_inds, minlength=num).float().cpu())
        areas = (image.gt_bboxes[:, 2:] - image.gt_bboxes[:, :2]).prod(1)
        sizes += [size_class(area) for area in areas.tolist()]
        levels.append(image.strides[image.prior_inds].cpu())
        places = image.prior_inds.unique()
        several.append((_inside(image.points[places], image.gt_bboxes).sum(1) > 1).float().cpu())
    counts, levels, several = (torch.cat(part or [torch.zeros(0)])
                               for part in (counts, levels, several))  # fmt: skip
    scalars = {}
    if len(counts):
        scalars["positives_per_gt"] = counts.mean().item()
        scalars["without_positive"] = (counts == 0).float().mean().item()
    for name, _ in SIZES:
        own = counts[[i for i, size in enumerate(sizes) if size == name]]
        if len(own):
            scalars[f"positives_per_gt_{name}"] = own.mean().item()
    for stride in levels.unique().tolist():
        scalars[f"level_{int(stride)}"] = (levels == stride).float().mean().item()
    if len(several):
        scalars["ambiguous"] = several.mean().item()
    scalars.update(_mixture_scalars(images))
    return scalars


def _mixture_scalars(images: list[ImageAssignment]) -> dict[str, float]:
    known = [image for image in images if image.thresholds is not None and len(image.thresholds)]
    if not known:
        return {}
    thresholds = torch.cat([image.thresholds for image in known])
    fitted = thresholds.isfinite()  # the others had no candidate
    if not fitted.any():
        return {}
    low, high = torch.cat([image.means for image in known])[fitted].mean(dim=0).tolist()
    return dict(threshold=thresholds[fitted].mean().item(), low_mean=low, high_mean=high)


def agreement(images: list[ImageAssignment], reference: str) -> float | None:
    """Share of common (location, GT) pairs among those of either assigner, over a batch.

    Args:
        images: of the batch.
        reference: ``'atss'``: mmdet's ATSSAssigner with one square anchor of 8 strides a location;
            ``'task_aligned'``: its TaskAlignedAssigner on the same predictions.

    Returns:
        In [0, 1]; ``None`` where the reference needs predictions that the assigner does not see,
        or neither has a positive.
    """
    common = either = 0
    for image in images:
        if reference == "task_aligned" and image.scores is None:
            return None
        theirs = reference_pairs(image, reference)
        common += len(image.pairs() & theirs)
        either += len(image.pairs() | theirs)
    return common / either if either else None


def reference_pairs(image: ImageAssignment, reference: str) -> set[tuple[int, int]]:
    """The positives of one of mmdet's assigners on the same image; see :func:`agreement`."""
    if len(image.gt_bboxes) == 0:
        return set()
    gts = InstanceData(bboxes=image.gt_bboxes, labels=image.gt_labels)
    # ATSS wants the locations level by level.
    order = image.strides.argsort(stable=True)
    half = image.strides[:, None] * ANCHOR_SCALE / 2
    if reference == "atss":
        anchors = torch.cat([image.points - half, image.points + half], dim=1)[order]
        counts = image.strides[order].unique_consecutive(return_counts=True)[1].tolist()
        result = ATSSAssigner(topk=9).assign(InstanceData(priors=anchors), counts, gts)
    else:
        priors = torch.cat([image.points, image.strides[:, None].expand(-1, 2)], dim=1)[order]
        pred = InstanceData(priors=priors, scores=image.scores[order], bboxes=image.bboxes[order])
        result = TaskAlignedAssigner(topk=13).assign(pred, gts, alpha=1, beta=6)
    positive = (result.gt_inds > 0).nonzero().squeeze(1)
    return set(zip(order[positive].tolist(), (result.gt_inds[positive] - 1).tolist()))


def _inside(points: Tensor, bboxes: Tensor) -> Tensor:
    """Which boxes contain which points, ``(P, G)``."""
    return ((points[:, None] > bboxes[None, :, :2]) & (points[:, None] < bboxes[None, :, 2:])).all(
        -1
    )
