"""Candidates of label assignment: every (location, GT) pair whose location lies in the GT box.

Shape legend of the whole package: N images, P priors (locations) per image over all levels,
G ground truths in the whole batch, C classes, K candidates kept per GT, E (location, GT) pairs.
Boxes are xyxy in pixels of the network input. A location's flat index over the batch is
``image * P + prior``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor


@dataclass
class BatchGroundTruth:
    """All ground truths of a batch in one list.

    Attributes:
        bboxes: GT boxes, xyxy in pixels, ``(G, 4)`` float32.
        labels: class indices, ``(G,)`` int64.
        image_inds: index of the image that each GT belongs to, ascending, ``(G,)`` int64.
        num_images: N.
    """

    bboxes: Tensor
    labels: Tensor
    image_inds: Tensor
    num_images: int

    @classmethod
    def from_instances(cls, batch_gt_instances: Sequence[InstanceData]) -> "BatchGroundTruth":
        """Concatenate the ground truths of all images, without host-device synchronisation.

        Args:
            batch_gt_instances: one ``InstanceData`` per image with ``bboxes``, a tensor ``(g, 4)``
                or one of mmdet's box classes, and ``labels``, ``(g,)``, of any number type. An
                image without objects may have empty tensors of any shape.

        Raises:
            ValueError: boxes are not of shape ``(g, 4)``, or boxes and labels differ in number.
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
    """(location, GT) pairs, sorted by GT, then by location.

    Attributes:
        prior_inds: flat location index ``image * P + prior``, ``(E,)`` int64.
        gt_inds: GT index over the batch, ascending, ``(E,)`` int64.
        counts: number of pairs of each GT, ``(G,)`` int64.
    """

    prior_inds: Tensor
    gt_inds: Tensor
    counts: Tensor

    def __len__(self) -> int:
        """E."""
        return len(self.prior_inds)


@dataclass
class TopCandidates:
    """The K pairs of least loss of each GT, ascending in loss.

    A GT with fewer than K pairs has absent entries at the end of its row: ``losses`` is ``inf``
    there, ``valid`` is False, and the two indices are arbitrary (in range, unless the batch has no
    location at all).

    Attributes:
        losses: ``(G, K)`` float32.
        prior_inds: flat location index, ``(G, K)`` int64.
        valid: ``(G, K)`` bool.
        pair_inds: index into :class:`CandidatePairs`, ``(G, K)`` int64.
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
    """List the pairs of a location and a GT box that contains it.

    This is the indicator of `A Triple-head Network with Loss-aware Label Assignment for Object
    Detection`, eq. 2. A location on the border of a box is outside it.

    On a GPU the ``nonzero`` below is a host-device synchronisation: E, the size of what follows, is
    read on the host. It is the only one of JLAAssigner and SpatialAlignAssigner with the batched
    mixture, unless ``level_mode='regress_range'`` copies the ranges to the device. The rest of a
    training step has others.

    Args:
        points: location centres in pixels, ``(P, 2)``.
        gts: the batch's ground truths.
        strides: stride of each location in pixels, ``(P,)``; needed with ``center_radius``.
        center_radius: keep only locations within this many strides of the box centre along both
            axes, as FCOS's center sampling does. ``None`` (the paper) keeps the whole box.

    Raises:
        ValueError: ``center_radius`` without ``strides``.
    """
    x, y = points.unbind(1)
    left, top, right, bottom = gts.bboxes[..., None].unbind(1)  # (G, 1) each
    if center_radius is not None:
        if strides is None:
            raise ValueError("center_radius counts in strides: pass the strides of the locations.")
        radius = center_radius * strides
        center_x, center_y = (left + right) / 2, (top + bottom) / 2
        left, right = torch.max(left, center_x - radius), torch.min(right, center_x + radius)
        top, bottom = torch.max(top, center_y - radius), torch.min(bottom, center_y + radius)
    inside = x > left  # (G, P)
    inside &= x < right
    inside &= y > top
    inside &= y < bottom
    gt_inds, prior_inds = inside.nonzero(as_tuple=True)
    if gts.num_images > 1:
        prior_inds = prior_inds.add(gts.image_inds[gt_inds], alpha=len(points))
    return CandidatePairs(prior_inds, gt_inds, gt_counts(gt_inds, len(inside)))


def gt_counts(gt_inds: Tensor, num_gts: int) -> Tensor:
    """Number of pairs of each GT, ``(G,)``, from their ascending GT indices, ``(E,)``."""
    bounds = torch.arange(num_gts + 1, device=gt_inds.device)
    return torch.searchsorted(gt_inds.contiguous(), bounds).diff()


def select_top_candidates(pairs: CandidatePairs, losses: Tensor, topk: int) -> TopCandidates:
    """Keep the ``topk`` pairs of least finite loss of each GT; ties go to the lower location index.

    Memory is proportional to E: one sort, no ``(G, P)`` cost matrix.

    Args:
        pairs: E pairs of G ground truths.
        losses: joint loss of each pair, ``(E,)``; NaN and inf are dropped.
        topk: K.
    """
    column = torch.arange(topk, device=losses.device)
    if len(pairs) == 0:
        absent = column.new_zeros((len(pairs.counts), topk))
        return TopCandidates(losses.new_full(absent.shape, math.inf), absent, absent.bool(), absent)
    losses = losses.nan_to_num(math.inf, math.inf, math.inf)
    order = _ascending_within(pairs.gt_inds, losses)
    first = pairs.counts.cumsum(0) - pairs.counts  # position of each GT's first pair in `order`
    top_pairs = order[(first[:, None] + column).clamp(max=len(pairs) - 1)]
    top_losses = losses[top_pairs].masked_fill_(column >= pairs.counts[:, None], math.inf)
    valid = top_losses < math.inf
    return TopCandidates(top_losses, pairs.prior_inds[top_pairs], valid, top_pairs)


def _ascending_within(groups: Tensor, values: Tensor) -> Tensor:
    """Indices that stably sort by group, and by value within a group, ``(E,)``.

    One sort of int64 keys: the group in the upper 32 bits, the value's bits in the lower ones. The
    bits of a float32 ascend with its value once those of negative numbers are flipped. Adding 0
    turns -0.0, whose bits differ, into 0.0.

    Args:
        groups: ``(E,)`` int64, below 2^31.
        values: ``(E,)``, no NaN.
    """
    bits = (values.float() + 0.0).view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return torch.add(bits, groups, alpha=2**32).argsort(stable=True)
