"""IACAssigner: IoU-classification-aware anchor assignment (paper C, eq. 4 and 5)."""

import math
from collections.abc import Callable

import torch
from mmdet.models.task_modules.assigners import AssignResult, ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from .ambiguity import least_loss, scatter_sum
from .candidate_edges import CandidateEdges, gt_counts, select_top_candidates

MIN_REACH = 0.01  # pixels from a box's centre of a positive to each side, as in ATSS


def iou_classification_score(
    overlaps: Tensor, areas: Tensor, gt_areas: Tensor, probabilities: Tensor, alpha: float
) -> Tensor:
    """``alpha * p + (1 - alpha) * intersection / smaller area`` of each pair (paper C, eq. 4).

    Args:
        overlaps: IoU of a GT and an anchor, ``(E,)``.
        areas, gt_areas: in square pixels, ``(E,)``.
        probabilities: of the GT's class at the anchor, ``(E,)``.
        alpha: weight of the classification.

    Returns:
        ``(E,)``.
    """
    intersection = overlaps.clamp(min=0) * (areas + gt_areas) / (1 + overlaps.clamp(min=0))
    smaller = torch.min(areas, gt_areas).clamp(min=1e-6)
    return alpha * probabilities + (1 - alpha) * (intersection / smaller).clamp(max=1)


class ScorePositives:
    """Before an IoU assigner of mmdet's: positives that classification knows as well.

    Args:
        score_alpha: weight of the class probability in the score, alpha of eq. 4.
        score_threshold: positive from here on; ``inf`` leaves mmdet's assigner as it is.
        min_iou: least IoU of such a positive. An anchor that lies wholly in a large GT has
            intersection over smaller area 1, whatever its size.
        score_topk: at most so many such positives a GT, those of largest score.
    """

    needs_scores = True

    def __init__(
        self,
        *args,
        score_alpha: float = 0.5,
        score_threshold: float = 0.5,
        min_iou: float = 0.3,
        score_topk: int = 9,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= score_alpha <= 1 or not 0 <= min_iou <= 1 or score_topk < 1:
            raise ValueError(
                "score_alpha and min_iou are in [0, 1] and score_topk at least 1, not "
                f"{score_alpha}, {min_iou} and {score_topk}."
            )
        self.score_alpha = score_alpha
        self.score_threshold = score_threshold
        self.min_iou = min_iou
        self.score_topk = score_topk
        # Of the next image, set by a head that knows them: (P, C), or a function of the indices of
        # anchors and classes, (E,) both, for the few pairs that are looked at.
        self.scores: Tensor | Callable[[Tensor, Tensor], Tensor] | None = None

    def _probabilities(self, pred_instances: InstanceData) -> Tensor | Callable | None:
        scores = pred_instances.scores if "scores" in pred_instances else self.scores
        if scores is None and math.isfinite(self.score_threshold):
            raise ValueError(
                f"{type(self).__name__} needs class probabilities. Use one of the heads "
                "DCRetinaHead, DCATSSHead or DCGFLHead in place of mmdet's, or give "
                "pred_instances.scores."
            )
        return scores

    def _promote(
        self,
        result: AssignResult,
        overlaps: Tensor,
        priors: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        scores: Tensor | Callable,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Make the anchors of eq. 5's second line positives of ``result``.

        Only pairs of an IoU from ``min_iou`` on are looked at, few of all.

        Args:
            result: mmdet's decision; changed in place.
            overlaps: IoU, ``(G, P)``; -1 in ignored regions.
            priors, gt_bboxes: xyxy, ``(P, 4)`` and ``(G, 4)``.
            gt_labels: ``(G,)``.
            scores: class probabilities; see ``self.scores``.
            allowed: pairs that may be chosen at all, ``(G, P)`` bool.

        Returns:
            The anchors that have become positive, ``(P,)`` bool.
        """
        eligible = overlaps >= self.min_iou
        if allowed is not None:
            eligible &= allowed
        gt_inds, prior_inds = eligible.nonzero(as_tuple=True)
        labels = gt_labels[gt_inds]
        probabilities = (
            scores(prior_inds, labels) if callable(scores) else scores[prior_inds, labels]
        )
        score = iou_classification_score(
            overlaps[gt_inds, prior_inds],
            _area(priors[prior_inds]),
            _area(gt_bboxes[gt_inds]),
            probabilities.to(overlaps.device),
            self.score_alpha,
        )
        cost = (-score).masked_fill(~(score >= self.score_threshold), math.inf)
        edges = CandidateEdges(prior_inds, gt_inds, gt_counts(gt_inds, len(gt_bboxes)))
        top = select_top_candidates(edges, cost, self.score_topk)
        chosen = least_loss(top.losses, top.prior_inds, top.valid, len(priors))
        number = torch.arange(1, len(gt_bboxes) + 1, device=priors.device)[:, None]
        owner = scatter_sum(chosen * number, top.prior_inds, len(priors))
        gained = (owner > 0) & (result.gt_inds <= 0)
        result.gt_inds = torch.where(gained, owner, result.gt_inds)
        result.labels = torch.where(gained, gt_labels[owner.clamp(min=1) - 1], result.labels)
        return gained


@TASK_UTILS.register_module()
class IACAssigner(ScorePositives, MaxIoUAssigner):
    """mmdet's MaxIoUAssigner, and positives that classification knows although their IoU is low.

    Paper C. An anchor is positive if MaxIoUAssigner makes it so, or if its score (eq. 4) for a GT
    reaches ``score_threshold``; then background, then ignored (eq. 5). Anchors in ignored regions
    stay ignored. Needs the class probabilities of the anchors: use it in ``DCRetinaHead``, or give
    ``pred_instances.scores``. For ATSS see :class:`IACATSSAssigner`.

    Args:
        score_alpha, score_threshold, min_iou, score_topk: see :class:`ScorePositives`.
        others: those of mmdet's ``MaxIoUAssigner``.

    The paper's alpha and threshold are lost. These defaults were best in a cross-validation of
    RetinaNet on BCCD's training split, two folds of four: 36.9 AP, 36.7 without any such positive,
    35.8 to 36.5 with a threshold of 0.6 or 0.7, 35.4 with ``min_iou=0.1``, 36.6 with
    ``score_topk=3``. Only the guard against low IoU is clear of the noise.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(type='DCRetinaHead'),
            train_cfg=dict(assigner=dict(type='IACAssigner', score_threshold=0.5)))
    """

    _instances: tuple | None = None

    @torch.no_grad()
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """See mmdet's MaxIoUAssigner.

        Args:
            pred_instances: ``priors`` ``(P, 4)`` xyxy and, unless the head has set ``self.scores``,
                ``scores``: class probabilities ``(P, C)``.
            gt_instances: ``bboxes`` ``(G, 4)``, ``labels`` ``(G,)``.
            gt_instances_ignore: ``bboxes`` of ignored regions.

        Raises:
            ValueError: no probabilities, although ``score_threshold`` is finite.
        """
        scores = self._probabilities(pred_instances)
        self._instances = (pred_instances.priors, gt_instances.bboxes, scores)
        try:
            return super().assign(pred_instances, gt_instances, gt_instances_ignore, **kwargs)
        finally:
            self._instances = self.scores = None

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """MaxIoUAssigner's decision, then eq. 5's second line.

        Args:
            overlaps: IoU, ``(G, P)``; -1 in ignored regions.
            gt_labels: ``(G,)``.
        """
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if overlaps.numel() and math.isfinite(self.score_threshold):
            priors, gt_bboxes, scores = self._instances
            # With gpu_assign_thr mmdet compares many boxes on the CPU.
            priors, gt_bboxes = priors.to(overlaps.device), gt_bboxes.to(overlaps.device)
            self._promote(result, overlaps, priors, gt_bboxes, gt_labels, scores)
        return result


@TASK_UTILS.register_module()
class IACATSSAssigner(ScorePositives, ATSSAssigner):
    """mmdet's ATSSAssigner with the positives of paper C's score, for ATSS and GFL.

    As :class:`IACAssigner`, on top of ATSS's own rule. The centre of such an anchor lies in the GT
    box, as ATSS asks of its own positives: its centerness is undefined elsewhere. The defaults are
    those chosen for RetinaNet; on ATSS nobody has compared them.

    Args:
        score_alpha, score_threshold, min_iou, score_topk: see :class:`ScorePositives`.
        others: those of mmdet's ``ATSSAssigner``.

    Example::

        _base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(type='DCATSSHead'),
            train_cfg=dict(assigner=dict(type='IACATSSAssigner', topk=9)))
    """

    @torch.no_grad()
    def assign(
        self,
        pred_instances: InstanceData,
        num_level_priors: list[int],
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """See mmdet's ATSSAssigner and :meth:`IACAssigner.assign`."""
        scores = self._probabilities(pred_instances)
        if self.alpha is None:  # without DDOD's cost mmdet warns of scores
            pred_instances = InstanceData(priors=pred_instances.priors)
        self.scores = None
        result = super().assign(
            pred_instances, num_level_priors, gt_instances, gt_instances_ignore
        )
        gt_bboxes, priors = gt_instances.bboxes, pred_instances.priors[:, :4]
        if len(gt_bboxes) == 0 or len(priors) == 0 or not math.isfinite(self.score_threshold):
            return result
        overlaps = self.iou_calculator(gt_bboxes, priors)
        (x, y), (left, top, right, bottom) = _center(priors).T, gt_bboxes.T[..., None]
        inside = (x - left > MIN_REACH) & (right - x > MIN_REACH)
        inside &= (y - top > MIN_REACH) & (bottom - y > MIN_REACH)
        allowed = inside & (result.gt_inds >= 0)
        gained = self._promote(
            result, overlaps, priors, gt_bboxes, gt_instances.labels, scores, allowed
        )
        owner = (result.gt_inds - 1).clamp(min=0)
        own_overlap = overlaps.gather(0, owner[None])[0]
        result.max_overlaps = torch.where(gained, own_overlap, result.max_overlaps)
        return result


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def _center(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
