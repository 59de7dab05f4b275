"""IACAssigner: IoU-classification-aware anchor assignment (paper C, eq. 4 and 5)."""

import math
from collections.abc import Callable
from functools import partial

import torch
from mmdet.models.task_modules.assigners import AssignResult, ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ....utils.triton_support import has_triton
from ...utils.blockwise_iou import OverlapsInBlocks, pairs_from
from .ambiguity import least_loss
from .candidates import CandidatePairs, gt_counts, select_top_candidates

MIN_REACH = 0.01  # pixels from a box's centre of a positive to each side, as in ATSS


def iou_classification_score(
    priors: Tensor, gt_bboxes: Tensor, probabilities: Tensor, alpha: float
) -> Tensor:
    """``alpha * p + (1 - alpha) * intersection / smaller area`` of each pair (paper C, eq. 4).

    The second term is exactly one for a box that lies wholly in the other one, and zero for a box
    without area.

    Args:
        priors, gt_bboxes: an anchor and a GT of each pair, xyxy in pixels, ``(E, 4)``.
        probabilities: of the GT's class at the anchor, ``(E,)``.
        alpha: weight of the classification.

    Returns:
        ``(E,)``.
    """
    (low, high), (gt_low, gt_high) = priors.split(2, dim=1), gt_bboxes.split(2, dim=1)
    intersection = _area(torch.max(low, gt_low), torch.min(high, gt_high))
    smaller = torch.min(_area(low, high), _area(gt_low, gt_high))
    share = intersection / smaller.clamp(min=torch.finfo(smaller.dtype).tiny)
    return alpha * probabilities + (1 - alpha) * share


class IoUClsScoreMixin:
    """Before an IoU assigner of mmdet's: positives that classification knows as well.

    Args:
        score_alpha: weight of the class probability in the score, alpha of eq. 4.
        score_threshold: positive from here on; ``inf`` leaves mmdet's assigner as it is.
        min_iou: least IoU of such a positive. An anchor that lies wholly in a large GT has
            intersection over smaller area 1, whatever its size. The pairs of such an IoU are kept
            as a list, so 0 takes some hundred bytes for each of all pairs.
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
        self.iou_calculator = OverlapsInBlocks(self.iou_calculator)
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
        # anchors and classes, (E,) both, for the few pairs that are looked at. The indices are
        # where mmdet assigns, which is the CPU for many GTs with gpu_assign_thr.
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
        centered: bool = False,
    ) -> None:
        """Make the anchors of eq. 5's second line positives of ``result``.

        Only pairs of an IoU from ``min_iou`` on are looked at, few of all: beside ``overlaps``
        nothing grows with G times P.

        Args:
            result: mmdet's decision; changed in place.
            overlaps: IoU, ``(G, P)``; -1 in ignored regions.
            priors, gt_bboxes: xyxy in pixels, ``(P, 4)`` and ``(G, 4)``.
            gt_labels: ``(G,)``.
            scores: class probabilities; see ``self.scores``.
            centered: whether the anchor's centre must lie in the box, and the anchor outside
                ignored regions, as ATSS asks of its own positives.
        """
        gt_inds, prior_inds = pairs_from(overlaps, self.min_iou)
        probabilities = _look_up(scores, prior_inds, gt_labels[gt_inds])
        if has_triton(overlaps):
            from .iac_triton import promote

            promote(
                result.gt_inds, result.labels, (gt_inds, prior_inds), priors, gt_bboxes,
                gt_labels, probabilities, self.score_alpha, self.score_threshold,
                self.score_topk, MIN_REACH if centered else None,
            )  # fmt: skip
            return
        boxes, gts = priors[prior_inds], gt_bboxes[gt_inds]
        score = iou_classification_score(
            boxes.float(), gts.float(), probabilities, self.score_alpha
        )
        usable = score >= self.score_threshold
        if centered:
            usable &= _reach(boxes, gts) > MIN_REACH
            usable &= result.gt_inds[prior_inds] >= 0
        cost = torch.where(usable, -score, math.inf)
        edges = CandidatePairs(prior_inds, gt_inds, gt_counts(gt_inds, len(gt_bboxes)))
        top = select_top_candidates(edges, cost, self.score_topk)
        chosen = least_loss(top.losses, top.prior_inds, top.valid, len(priors))
        number = torch.arange(1, len(gt_bboxes) + 1, device=priors.device)[:, None]
        gains = chosen & (result.gt_inds[top.prior_inds] <= 0)
        for values, new in ((result.gt_inds, number), (result.labels, gt_labels[:, None])):
            change = torch.where(gains, new - values[top.prior_inds], 0)
            values.scatter_add_(0, top.prior_inds.flatten(), change.flatten())


@TASK_UTILS.register_module()
class IACAssigner(IoUClsScoreMixin, MaxIoUAssigner):
    """mmdet's MaxIoUAssigner, and positives that classification knows although their IoU is low.

    Paper C. An anchor is positive if MaxIoUAssigner makes it so, or if its score (eq. 4) for a GT
    reaches ``score_threshold``; then background, then ignored (eq. 5). Anchors in ignored regions
    stay ignored. Needs the class probabilities of the anchors: use it in ``DCRetinaHead``, or give
    ``pred_instances.scores``. For ATSS see :class:`IACATSSAssigner`. The IoU of all pairs, 4 bytes
    each, is all that it holds of that size; MaxIoUAssigner takes 36 bytes on the way.

    Args:
        score_alpha, score_threshold, min_iou, score_topk: see :class:`IoUClsScoreMixin`.
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

        Boxes are tensors or mmdet's ``HorizontalBoxes``.

        Raises:
            ValueError: no probabilities, although ``score_threshold`` is finite.
        """
        scores = self._probabilities(pred_instances)
        boxes = get_box_tensor(pred_instances.priors), get_box_tensor(gt_instances.bboxes)
        self._instances = (*boxes, scores)
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
        gt_labels = gt_labels.long()
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if overlaps.numel() and math.isfinite(self.score_threshold):
            priors, gt_bboxes, scores = self._instances
            # With gpu_assign_thr mmdet compares many boxes on the CPU.
            priors, gt_bboxes = priors.to(overlaps.device), gt_bboxes.to(overlaps.device)
            self._promote(result, overlaps, priors, gt_bboxes, gt_labels, scores)
        return result


@TASK_UTILS.register_module()
class IACATSSAssigner(IoUClsScoreMixin, ATSSAssigner):
    """mmdet's ATSSAssigner with the positives of paper C's score, for ATSS and GFL.

    As :class:`IACAssigner`, on top of ATSS's own rule. The centre of such an anchor lies in the GT
    box, as ATSS asks of its own positives: its centerness is undefined elsewhere. The defaults are
    those chosen for RetinaNet; on ATSS nobody has compared them.

    Args:
        score_alpha, score_threshold, min_iou, score_topk: see :class:`IoUClsScoreMixin`.
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
        """See mmdet's ATSSAssigner and :meth:`IACAssigner.assign`.

        With ``alpha``, DDOD's cost, ``pred_instances.scores`` are logits, as mmdet reads them.
        """
        scores = self._probabilities(pred_instances)
        self.scores = None
        priors = get_box_tensor(pred_instances.priors)[:, :4]
        gt_bboxes = get_box_tensor(gt_instances.bboxes)
        seen = InstanceData(priors=priors)
        if self.alpha is not None:  # without it mmdet warns of them
            for name in ("scores", "bboxes"):
                if name in pred_instances:
                    seen.set_field(get_box_tensor(pred_instances[name]), name)
            scores = partial(_of_logits, scores)
        if gt_instances_ignore is not None:
            ignored = get_box_tensor(gt_instances_ignore.bboxes)
            gt_instances_ignore = InstanceData(bboxes=ignored)
        gt_labels = gt_instances.labels.long()
        gts = InstanceData(bboxes=gt_bboxes, labels=gt_labels)
        try:
            self.iou_calculator.keep_next()  # ATSS compares all pairs first
            result = super().assign(seen, num_level_priors, gts, gt_instances_ignore)
            overlaps = self.iou_calculator.kept
        finally:
            self.iou_calculator.forget()
        if len(gt_bboxes) == 0 or len(priors) == 0 or not math.isfinite(self.score_threshold):
            return result
        if self.alpha is not None:  # those were of the predictions
            overlaps = self.iou_calculator(priors, gt_bboxes)
        before = result.gt_inds.clone()
        self._promote(result, overlaps.T, priors, gt_bboxes, gt_labels, scores, centered=True)
        owner = (result.gt_inds - 1).clamp(min=0)
        own_overlap = overlaps.gather(1, owner[:, None])[:, 0]
        gained = result.gt_inds != before
        result.max_overlaps = torch.where(gained, own_overlap, result.max_overlaps)
        return result


def _area(low: Tensor, high: Tensor) -> Tensor:
    """From the upper left and the lower right corner, ``(E, 2)``: ``(E,)``."""
    return (high - low).clamp(min=0).prod(dim=1)


def _look_up(scores: Tensor | Callable, prior_inds: Tensor, labels: Tensor) -> Tensor:
    """Probability of each pair, ``(E,)``, in float32 on the device of the indices."""
    if callable(scores):
        found = scores(prior_inds, labels)
    else:
        found = scores[prior_inds.to(scores.device), labels.to(scores.device)]
    return found.to(prior_inds.device, torch.float32)


def _of_logits(logits: Tensor, prior_inds: Tensor, labels: Tensor) -> Tensor:
    return _look_up(logits, prior_inds, labels).sigmoid()


def _reach(boxes: Tensor, gts: Tensor) -> Tensor:
    """Distance from each box's centre to the nearest side of its GT, ``(E,)``; below 0 outside."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return torch.cat([center - gts[:, :2], gts[:, 2:] - center], dim=1).amin(dim=1)
