"""The candidate edge list: every (location, GT) pair whose location lies in the GT box.

Shape legend of the whole package: N images, P priors (locations) of one image over all levels,
G ground truths of the whole batch, C classes, K candidates kept a GT, E edges. Boxes are xyxy in
pixels of the network input. A location's flat index over the batch is ``image * P + prior``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor


@dataclass
class BatchGroundTruth:
    """All ground truths of a batch in one list.

    Attributes:
        bboxes: GT boxes, xyxy in pixels, ``(G, 4)`` float32.
        labels: class indices, ``(G,)`` int64.
        image_inds: image that each GT belongs to, ``(G,)`` int64.
        num_images: N.
    """

    bboxes: Tensor
    labels: Tensor
    image_inds: Tensor
    num_images: int

    @classmethod
    def from_instances(cls, batch_gt_instances: Sequence) -> "BatchGroundTruth":
        """Join mmdet's ``InstanceData`` of each image; the sizes are known on the host already.

        Args:
            batch_gt_instances: of each image, ``bboxes``, a tensor ``(g, 4)`` or one of mmdet's box
                classes, and ``labels``, ``(g,)``, of any number type. Those of an image without
                objects may have any empty shape.

        Raises:
            ValueError: boxes without four numbers, or not as many labels as boxes.
        """
        bboxes, labels, image_inds = [], [], []
        for i, gt in enumerate(batch_gt_instances):
            box, label = get_box_tensor(gt.bboxes), gt.labels.flatten()
            if box.numel() == 0:
                box = box.reshape(-1, 4)
            if box.dim() != 2 or box.shape[1] != 4 or len(label) != len(box):
                raise ValueError(
                    f"gt_instances need bboxes of shape (G, 4), xyxy, and labels of shape (G,), "
                    f"not {tuple(box.shape)} and {tuple(gt.labels.shape)} (image {i} of the batch)."
                )
            bboxes.append(box.float())
            labels.append(label.long())
            image_inds.append(box.new_full((len(box),), i, dtype=torch.long))
        return cls(torch.cat(bboxes), torch.cat(labels), torch.cat(image_inds), len(bboxes))


@dataclass
class CandidatePairs:
    """Edges in order of GT, then of location.

    Attributes:
        prior_inds: flat location index ``image * P + prior``, ``(E,)``.
        gt_inds: GT index over the batch, ascending, ``(E,)``.
        counts: number of edges of each GT, ``(G,)``.
    """

    prior_inds: Tensor
    gt_inds: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.prior_inds)


@dataclass
class TopCandidates:
    """The K least-loss edges of each GT, ascending in loss; absent places come last.

    Attributes:
        losses: ``(G, K)``, ``inf`` where a GT has fewer than K candidates.
        prior_inds: flat location index, ``(G, K)``, any where absent.
        valid: ``(G, K)`` bool.
        pair_inds: place in the edge list, ``(G, K)``, any where absent.
    """

    losses: Tensor
    prior_inds: Tensor
    valid: Tensor
    pair_inds: Tensor


def build_candidate_pairs(
    points: Tensor,
    gts: BatchGroundTruth,
    strides: Tensor | None = None,
    center_radius: float | None = None,
) -> CandidatePairs:
    """List the pairs of a location and a GT box that contains it (paper B, indicator of eq. 2).

    The ``nonzero`` here is where assignment waits for the device, once: it sizes the edges. A
    location on the border of a box is outside it.

    Args:
        points: location centres in pixels, ``(P, 2)``.
        gts: the batch's ground truths.
        strides: stride of each location in pixels, ``(P,)``; needed with ``center_radius``.
        center_radius: keep only locations within this many strides of the box centre along both
            axes, as FCOS's center sampling does. ``None`` (the paper) keeps the whole box.
    """
    x, y = points.unbind(1)
    left, top, right, bottom = gts.bboxes[..., None].unbind(1)  # (G, 1) each
    if center_radius is not None:
        if strides is None:
            raise ValueError("center_radius counts in strides: pass the strides of the locations.")
        reach = center_radius * strides
        center_x, center_y = (left + right) / 2, (top + bottom) / 2
        left, right = torch.max(left, center_x - reach), torch.min(right, center_x + reach)
        top, bottom = torch.max(top, center_y - reach), torch.min(bottom, center_y + reach)
    inside = x > left  # (G, P)
    inside &= x < right
    inside &= y > top
    inside &= y < bottom
    gt_inds, prior_inds = inside.nonzero(as_tuple=True)
    if gts.num_images > 1:
        prior_inds = prior_inds.add(gts.image_inds[gt_inds], alpha=len(points))
    return CandidatePairs(prior_inds, gt_inds, gt_counts(gt_inds, len(inside)))


def gt_counts(gt_inds: Tensor, num_gts: int) -> Tensor:
    """How often each GT stands in ``gt_inds``, ascending, ``(E,)`` -> ``(G,)``."""
    bounds = torch.arange(num_gts + 1, device=gt_inds.device)
    return torch.searchsorted(gt_inds.contiguous(), bounds).diff()


def select_top_candidates(edges: CandidatePairs, losses: Tensor, topk: int) -> TopCandidates:
    """Keep the ``topk`` finite least-loss edges of each GT; ties go to the lower location index.

    Memory is proportional to E: one sort, no ``(G, P)`` cost matrix.

    Args:
        edges: E edges over G ground truths.
        losses: joint loss of each edge, ``(E,)``; NaN and inf are dropped.
        topk: K.
    """
    column = torch.arange(topk, device=losses.device)
    if len(edges) == 0:
        absent = column.new_zeros((len(edges.counts), topk))
        return TopCandidates(losses.new_full(absent.shape, math.inf), absent, absent.bool(), absent)
    losses = losses.nan_to_num(math.inf, math.inf, math.inf)
    order = _ascending_within(edges.gt_inds, losses)
    first = edges.counts.cumsum(0) - edges.counts  # of each GT, in that order
    top_pairs = order[(first[:, None] + column).clamp(max=len(edges) - 1)]
    top_losses = losses[top_pairs].masked_fill_(column >= edges.counts[:, None], math.inf)
    valid = top_losses < math.inf
    return TopCandidates(top_losses, edges.prior_inds[top_pairs], valid, top_pairs)


def _ascending_within(groups: Tensor, values: Tensor) -> Tensor:
    """Stable order by group, and within a group by value; ``groups`` (n,) below 2^31.

    One sort of integers: a float's bits ascend with it once those of negative ones are flipped.
    Adding 0 turns -0.0 into 0.0, whose bits differ.
    """
    bits = (values.float() + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return torch.add(bits, groups, alpha=2**32).argsort(stable=True)
