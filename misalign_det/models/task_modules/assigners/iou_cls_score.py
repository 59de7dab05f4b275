"""IoU-classification-aware (IAC) score of anchors, and the positives that it adds.

Eq. 4 and 5 of the paper on Dynamic Coefficient Loss (DC Loss), the IAC score and
Classification-Localization balanced NMS, below called the DC Loss paper.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmengine.structures import InstanceData
from torch import Tensor

from ....utils.triton_support import has_triton
from ....utils.validation import check_count
from ...utils.bipartite_matching import least_loss
from ...utils.blockwise_iou import OverlapsInBlocks, pairs_from
from .candidates import CandidatePairs, gt_counts, select_top_candidates

# In pixels. In ATSS, the centre of a positive lies farther than this from each side of its GT.
MIN_CENTER_DISTANCE = 0.01

# Class probabilities (P, C), or a function of anchor and class indices, (E,) each, that gives the
# probabilities (E,) of these pairs alone.
Scores = Tensor | Callable[[Tensor, Tensor], Tensor]


def iou_classification_score(
    priors: Tensor, gt_bboxes: Tensor, probabilities: Tensor, alpha: float
) -> Tensor:
    """``alpha * p + (1 - alpha) * intersection / smaller area`` of each pair (eq. 4).

    The second term is exactly one if one box lies wholly in the other, and zero if one has no area.

    Args:
        priors, gt_bboxes: anchor and GT of each pair, xyxy in pixels, ``(E, 4)`` each.
        probabilities: of the GT's class at the anchor, ``(E,)``.
        alpha: weight of the probability, in [0, 1].

    Returns:
        ``(E,)``.
    """
    (low, high), (gt_low, gt_high) = priors.split(2, dim=1), gt_bboxes.split(2, dim=1)
    intersection = _area(torch.max(low, gt_low), torch.min(high, gt_high))
    smaller = torch.min(_area(low, high), _area(gt_low, gt_high))
    share = intersection / smaller.clamp(min=torch.finfo(smaller.dtype).tiny)
    return alpha * probabilities + (1 - alpha) * share


class IoUClsScoreMixin:
    """Goes before one of mmdet's IoU assigners and adds positives by the IAC score.

    Args:
        *args: passed to mmdet's assigner.
        score_alpha: weight of the class probability in the score, alpha of eq. 4, in [0, 1].
        score_threshold: least score of such a positive; ``inf`` adds none.
        min_iou: least IoU of such a positive, in [0, 1]. An anchor inside a large GT has
            intersection over smaller area 1, however small it is. The pairs from this IoU on are
            listed, at some hundred bytes each: with 0 these are all pairs.
        score_topk: number of such positives per GT at most, those of largest score; at least 1.
        **kwargs: passed to mmdet's assigner.

    Raises:
        ValueError: a value outside its range.
    """

    needs_scores = True
    iou_calculator: OverlapsInBlocks

    def __init__(
        self,
        *args: Any,
        score_alpha: float = 0.5,
        score_threshold: float = 0.5,
        min_iou: float = 0.3,
        score_topk: int = 9,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.iou_calculator = OverlapsInBlocks(self.iou_calculator)
        if not 0 <= score_alpha <= 1 or not 0 <= min_iou <= 1:
            raise ValueError(
                f"score_alpha and min_iou are in [0, 1], not {score_alpha} and {min_iou}."
            )
        check_count("score_topk", score_topk)
        self.score_alpha = score_alpha
        self.score_threshold = score_threshold
        self.min_iou = min_iou
        self.score_topk = score_topk
        # Of the next image, set by the head. The indices that a function is called with are on the
        # device where mmdet assigns, which is the CPU for many GTs with gpu_assign_thr.
        self.scores: Scores | None = None

    def _scores_of(self, pred_instances: InstanceData) -> Scores | None:
        """``pred_instances.scores``, or else those that the head has set."""
        scores = pred_instances.scores if "scores" in pred_instances else self.scores
        if scores is None and math.isfinite(self.score_threshold):
            raise ValueError(
                f"{type(self).__name__} needs class probabilities. Use one of the heads "
                "DCRetinaHead, DCATSSHead or DCGFLHead in place of mmdet's, or give "
                "pred_instances.scores."
            )
        return scores

    def _add_positives(
        self,
        result: AssignResult,
        overlaps: Tensor,
        priors: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        scores: Scores,
        centered: bool = False,
    ) -> None:
        """Make the anchors of eq. 5's second line positives of ``result``, in place.

        Only the few pairs from ``min_iou`` on are scored: besides ``overlaps`` no memory grows
        with G times P. To list them is a host-device synchronisation.

        Args:
            result: mmdet's decision; ``gt_inds`` and ``labels`` are changed.
            overlaps: IoU, ``(G, P)``; -1 in ignored regions.
            priors, gt_bboxes: xyxy in pixels, ``(P, 4)`` and ``(G, 4)``.
            gt_labels: ``(G,)``.
            scores: class probabilities.
            centered: whether the anchor's centre must lie in the GT box, and the anchor outside
                ignored regions, as for ATSS's own positives.
        """
        gt_inds, prior_inds = pairs_from(overlaps, self.min_iou)
        probabilities = probabilities_of_pairs(scores, prior_inds, gt_labels[gt_inds])
        if has_triton(overlaps):
            from .iou_cls_score_triton import add_positives

            add_positives(
                result.gt_inds, result.labels, (gt_inds, prior_inds), priors, gt_bboxes,
                gt_labels, probabilities, self.score_alpha, self.score_threshold,
                self.score_topk, MIN_CENTER_DISTANCE if centered else None,
            )  # fmt: skip
            return
        boxes, gts = priors[prior_inds], gt_bboxes[gt_inds]
        score = iou_classification_score(
            boxes.float(), gts.float(), probabilities, self.score_alpha
        )
        usable = score >= self.score_threshold
        if centered:
            usable &= _center_distance(boxes, gts) > MIN_CENTER_DISTANCE
            usable &= result.gt_inds[prior_inds] >= 0
        cost = torch.where(usable, -score, math.inf)
        pairs = CandidatePairs(prior_inds, gt_inds, gt_counts(gt_inds, len(gt_bboxes)))
        top = select_top_candidates(pairs, cost, self.score_topk)
        chosen = least_loss(top.losses, top.prior_inds, top.valid, len(priors))
        number = torch.arange(1, len(gt_bboxes) + 1, device=priors.device)[:, None]
        gains = chosen & (result.gt_inds[top.prior_inds] <= 0)
        for values, new in ((result.gt_inds, number), (result.labels, gt_labels[:, None])):
            change = torch.where(gains, new - values[top.prior_inds], 0)
            values.scatter_add_(0, top.prior_inds.flatten(), change.flatten())


def probabilities_of_pairs(scores: Scores, prior_inds: Tensor, labels: Tensor) -> Tensor:
    """Class probability of each pair, ``(E,)`` float32 on the device of the indices.

    Args:
        scores: see :data:`Scores`, on any device.
        prior_inds, labels: anchor and class of each pair, ``(E,)`` each.
    """
    if callable(scores):
        found = scores(prior_inds, labels)
    else:
        found = scores[prior_inds.to(scores.device), labels.to(scores.device)]
    return found.to(prior_inds.device, torch.float32)


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Area of boxes from upper left and lower right corners, ``(E, 2)`` each: ``(E,)``."""
    return (high - low).clamp(min=0).prod(dim=1)


def _center_distance(boxes: Tensor, gts: Tensor) -> Tensor:
    """From each box's centre to the nearest side of its GT, in pixels, ``(E,)``; < 0 outside it."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([center - gts[:, :2], gts[:, 2:] - center], dim=1).amin(dim=1)
