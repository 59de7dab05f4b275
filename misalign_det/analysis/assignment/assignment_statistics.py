"""Figures about the label assignment of one training step, for any assigner."""

from dataclasses import dataclass

import torch
from mmdet.models.task_modules.assigners import ATSSAssigner, TaskAlignedAssigner
from mmengine.structures import InstanceData
from torch import Tensor

from ..spatial_gap import SIZES, points_inside, size_class

ANCHOR_SCALE = 8  # side of ATSS's anchors in strides


@dataclass
class ImageAssignment:
    """The positives of one image.

    Attributes:
        points, strides: locations in pixels of the network input, ``(P, 2)``, and the stride of
            their level, ``(P,)``.
        gt_bboxes, gt_labels: xyxy in the same pixels, ``(G, 4)``, and ``(G,)``.
        prior_inds, gt_inds: prior and GT of each positive, ``(E,)`` each; a prior may be positive
            for several GTs.
        scores, bboxes: class probabilities ``(P, C)`` and predicted boxes, xyxy, ``(P, 4)``;
            ``None`` for an assigner that gets no predictions.
        thresholds: largest positive cost per GT, ``(G,)``; ``None`` for an assigner without a
            mixture.
        means: of the two components of the mixture per GT, the lower one first, ``(G, 2)``;
            ``None`` likewise.
        forward, image: which forward pass of the step it is of, from 0, and its index in the batch;
            ``None`` where that is not known.
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
    forward: int | None = None
    image: int | None = None

    def pairs(self) -> set[tuple[int, int]]:
        """Prior and GT of each positive."""
        return set(zip(self.prior_inds.tolist(), self.gt_inds.tolist()))


def assignment_scalars(images: list[ImageAssignment]) -> dict[str, float]:
    """Figures of one training step.

    Args:
        images: of the batch.

    Returns:
        ``positives_per_gt``, also per size class that occurs, as ``positives_per_gt_small``;
        ``level_S``: share of the positives on the level of stride S; ``ambiguous``: share of the
        positive locations that lie in more than one GT box; ``without_positive``: share of the GTs
        without a positive; with a mixture, ``threshold``, ``low_mean`` and ``high_mean``: the
        separation and the means of the components, averaged over the GTs.
    """
    sizes: list[str] = []
    counts_per_image, levels_per_image, ambiguous_per_image = [], [], []
    for image in images:
        num = len(image.gt_bboxes)
        counts_per_image.append(torch.bincount(image.gt_inds, minlength=num).float().cpu())
        areas = (image.gt_bboxes[:, 2:] - image.gt_bboxes[:, :2]).prod(1)
        sizes += [size_class(area) for area in areas.tolist()]
        levels_per_image.append(image.strides[image.prior_inds].cpu())
        points = image.points[image.prior_inds.unique()]
        ambiguous_per_image.append(
            (points_inside(points, image.gt_bboxes).sum(1) > 1).float().cpu()
        )
    counts, levels, ambiguous = (
        torch.cat(parts or [torch.zeros(0)])
        for parts in (counts_per_image, levels_per_image, ambiguous_per_image)
    )
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
    if len(ambiguous):
        scalars["ambiguous"] = ambiguous.mean().item()
    scalars.update(_mixture_scalars(images))
    return scalars


def _mixture_scalars(images: list[ImageAssignment]) -> dict[str, float]:
    fits = [
        (image.thresholds, image.means)
        for image in images
        if image.thresholds is not None and image.means is not None and len(image.thresholds)
    ]
    if not fits:
        return {}
    thresholds = torch.cat([threshold for threshold, _ in fits])
    fitted = thresholds.isfinite()  # GTs without a candidate have no mixture
    if not fitted.any():
        return {}
    low, high = torch.cat([means for _, means in fits])[fitted].mean(dim=0).tolist()
    return dict(threshold=thresholds[fitted].mean().item(), low_mean=low, high_mean=high)


def agreement(images: list[ImageAssignment], reference: str) -> float | None:
    """How far an assigner agrees with one of mmdet's: their common positives over all positives.

    Args:
        images: of the batch.
        reference: ``'atss'``: mmdet's ATSSAssigner with one square anchor of 8 strides per
            location; ``'task_aligned'``: its TaskAlignedAssigner on the same predictions.

    Returns:
        Intersection over union of the two sets of (prior, GT) pairs, in [0, 1]; ``None`` where the
        reference needs predictions that the assigner does not get, or both sets are empty.
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
    """(prior, GT) of the positives of one of mmdet's assigners; see :func:`agreement`."""
    if len(image.gt_bboxes) == 0:
        return set()
    gts = InstanceData(bboxes=image.gt_bboxes, labels=image.gt_labels)
    # ATSSAssigner takes the priors level by level.
    order = image.strides.argsort(stable=True)
    half = image.strides[:, None] * ANCHOR_SCALE / 2
    if reference == "atss":
        anchors = torch.cat([image.points - half, image.points + half], dim=1)[order]
        counts = image.strides[order].unique_consecutive(return_counts=True)[1].tolist()
        result = ATSSAssigner(topk=9).assign(InstanceData(priors=anchors), counts, gts)
    elif image.scores is None or image.bboxes is None:
        raise ValueError("task_aligned needs scores and bboxes.")
    else:
        priors = torch.cat([image.points, image.strides[:, None].expand(-1, 2)], dim=1)[order]
        pred = InstanceData(priors=priors, scores=image.scores[order], bboxes=image.bboxes[order])
        result = TaskAlignedAssigner(topk=13).assign(pred, gts, alpha=1, beta=6)
    positive = (result.gt_inds > 0).nonzero().squeeze(1)
    return set(zip(order[positive].tolist(), (result.gt_inds[positive] - 1).tolist()))
