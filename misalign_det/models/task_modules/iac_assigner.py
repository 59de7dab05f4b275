"""IACAssigner: IoU-classification-aware anchor assignment (paper C, eq. 4 and 5)."""

import math

import torch
from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor


def iou_classification_score(
    overlaps: Tensor, areas: Tensor, gt_areas: Tensor, probabilities: Tensor, alpha: float
) -> Tensor:
    """``alpha * p + (1 - alpha) * intersection / smaller area`` of each pair (paper C, eq. 4).

    Args:
        overlaps: IoU of GTs and anchors, ``(G, P)``.
        areas, gt_areas: in square pixels, ``(P,)`` and ``(G,)``.
        probabilities: of the GT's class at each anchor, ``(G, P)``.
        alpha: weight of the classification.

    Returns:
        ``(G, P)``.
    """
    both = areas[None] + gt_areas[:, None]
    intersection = overlaps.clamp(min=0) * both / (1 + overlaps.clamp(min=0))
    smaller = torch.min(areas[None], gt_areas[:, None]).clamp(min=1e-6)
    return alpha * probabilities + (1 - alpha) * (intersection / smaller).clamp(max=1)


@TASK_UTILS.register_module()
class IACAssigner(MaxIoUAssigner):
    """mmdet's MaxIoUAssigner, and positives that classification knows although their IoU is low.

    Paper C. An anchor is positive if MaxIoUAssigner makes it so, or if its score (eq. 4) for a GT
    reaches ``score_threshold``; then background, then ignored (eq. 5). Anchors in ignored regions
    stay ignored. Needs the class probabilities of the anchors: use it in ``DCRetinaHead``, or give
    ``pred_instances.scores``. ATSS's centerness is undefined for the anchors with a centre outside
    the box that MaxIoUAssigner may choose, so ATSS does not train with it.

    Args:
        alpha: weight of the class probability in the score.
        score_threshold: positive from here on; ``inf`` is MaxIoUAssigner.
        min_iou: least IoU of such a positive. An anchor that lies wholly in a large GT has
            intersection over smaller area 1, whatever its size.
        score_topk: at most so many such positives a GT, those of largest score.
        others: those of mmdet's ``MaxIoUAssigner``.

    The paper's ``alpha`` and ``score_threshold`` are lost. These defaults are cautious ones: no
    figure stands behind them yet.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(type='DCRetinaHead'),
            train_cfg=dict(assigner=dict(type='IACAssigner', score_threshold=0.8)))
    """

    needs_scores = True

    def __init__(
        self,
        *args,
        alpha: float = 0.5,
        score_threshold: float = 0.8,
        min_iou: float = 0.3,
        score_topk: int = 9,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not 0 <= alpha <= 1 or not 0 <= min_iou <= 1 or score_topk < 1:
            raise ValueError(
                "alpha and min_iou are in [0, 1] and score_topk at least 1, not "
                f"{alpha}, {min_iou} and {score_topk}."
            )
        self.alpha = alpha
        self.score_threshold = score_threshold
        self.min_iou = min_iou
        self.score_topk = score_topk
        self.scores: Tensor | None = None  # of the next image, set by a head that knows them
        self._instances: tuple | None = None

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
        scores = pred_instances.scores if "scores" in pred_instances else self.scores
        if scores is None and math.isfinite(self.score_threshold):
            raise ValueError(
                "IACAssigner needs class probabilities. Use the head DCRetinaHead in place of "
                "RetinaHead, or give pred_instances.scores."
            )
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
        if overlaps.numel() == 0 or not math.isfinite(self.score_threshold):
            return result
        priors, gt_bboxes, scores = (part.to(overlaps.device) for part in self._instances)
        score = iou_classification_score(
            overlaps, _area(priors), _area(gt_bboxes), scores[:, gt_labels].t(), self.alpha
        )
        eligible = (overlaps >= self.min_iou) & (score >= self.score_threshold)
        score = score.masked_fill(~eligible, -math.inf)
        top = score.topk(min(self.score_topk, score.shape[1]), dim=1)
        kept = torch.full_like(score, -math.inf).scatter(1, top.indices, top.values)
        best, gt_index = kept.max(dim=0)
        gained = best.isfinite() & (result.gt_inds <= 0)
        result.gt_inds = torch.where(gained, gt_index + 1, result.gt_inds)
        result.labels = torch.where(gained, gt_labels[gt_index], result.labels)
        return result


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
