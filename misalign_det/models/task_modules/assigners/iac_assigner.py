"""mmdet's MaxIoUAssigner and ATSSAssigner with additional positives by the IAC score.

Eq. 5 of the DC Loss paper; see :mod:`.iou_cls_score`.
"""

import math
from functools import partial
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, ATSSAssigner, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from .iou_cls_score import IoUClsScoreMixin, Scores, probabilities_of_pairs

_HEADS = "IACAssigner goes with DCRetinaHead, IACATSSAssigner with DCATSSHead and DCGFLHead."


@TASK_UTILS.register_module()
class IACAssigner(IoUClsScoreMixin, MaxIoUAssigner):
    """MaxIoUAssigner, and positives of low IoU that the classifier is sure of.

    IoU-classification-aware assignment of the DC Loss paper. An anchor is positive if
    MaxIoUAssigner makes it so, or if its score for a GT (eq. 4) reaches ``score_threshold``; else
    background or ignored (eq. 5). Anchors in ignored regions stay ignored. It needs the class
    probabilities of the anchors: use it in ``DCRetinaHead``, or give ``pred_instances.scores``. For
    ATSS see :class:`IACATSSAssigner`. Its memory is the IoU of all pairs, 4 bytes each, and little
    else; MaxIoUAssigner takes 36 bytes per pair at its peak.

    Args:
        *args: passed to mmdet's ``MaxIoUAssigner``.
        score_alpha, score_threshold, min_iou, score_topk: see
            :class:`~.iou_cls_score.IoUClsScoreMixin`. The paper does not give alpha and the
            threshold. The defaults were best in a cross-validation of RetinaNet on BCCD's training
            split, two folds of four: 36.9 AP, 36.7 without any such positive, 35.8 to 36.5 with a
            threshold of 0.6 or 0.7, 35.4 with ``min_iou=0.1``, 36.6 with ``score_topk=3``. Only
            the effect of ``min_iou`` exceeds the noise.
        **kwargs: passed to mmdet's ``MaxIoUAssigner``.

    Raises:
        ValueError: a value outside its range.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(type='DCRetinaHead'),
            train_cfg=dict(assigner=dict(type='IACAssigner', score_threshold=0.5)))
    """

    _instances: tuple[Tensor, Tensor, Scores | None] | None = None

    @torch.no_grad()
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AssignResult:
        """See mmdet's MaxIoUAssigner. Boxes are tensors or mmdet's ``HorizontalBoxes``.

        Args:
            pred_instances: ``priors``, xyxy in pixels, ``(P, 4)``, and, unless the head has set
                ``self.scores``, ``scores``: class probabilities ``(P, C)``.
            gt_instances: ``bboxes``, xyxy in pixels, ``(G, 4)``, and ``labels`` ``(G,)``.
            gt_instances_ignore: ``bboxes`` of ignored regions.
            *args: must be empty; heads that pass more are written for another kind of assigner.
            **kwargs: passed to mmdet's assigner.

        Raises:
            TypeError: the head calls as for another kind of assigner.
            ValueError: no probabilities, although ``score_threshold`` is finite.
        """
        if args or not isinstance(gt_instances, InstanceData):
            raise TypeError(f"IACAssigner cannot be the assigner of this head. {_HEADS}")
        scores = self._scores_of(pred_instances)
        boxes = get_box_tensor(pred_instances.priors), get_box_tensor(gt_instances.bboxes)
        self._instances = (*boxes, scores)
        try:
            return super().assign(pred_instances, gt_instances, gt_instances_ignore, **kwargs)
        finally:
            self._instances = self.scores = None

    def assign_wrt_overlaps(self, overlaps: Tensor, gt_labels: Tensor) -> AssignResult:
        """MaxIoUAssigner's decision, then eq. 5's second line. :meth:`assign` calls it.

        Args:
            overlaps: IoU, ``(G, P)``; -1 in ignored regions.
            gt_labels: ``(G,)``.
        """
        gt_labels = gt_labels.long()
        result = super().assign_wrt_overlaps(overlaps, gt_labels)
        if overlaps.numel() and math.isfinite(self.score_threshold):
            assert self._instances is not None  # set by assign
            priors, gt_bboxes, scores = self._instances
            assert scores is not None  # or assign would have raised
            # With gpu_assign_thr mmdet compares many boxes on the CPU.
            priors, gt_bboxes = priors.to(overlaps.device), gt_bboxes.to(overlaps.device)
            self._add_positives(result, overlaps, priors, gt_bboxes, gt_labels, scores)
        return result


@TASK_UTILS.register_module()
class IACATSSAssigner(IoUClsScoreMixin, ATSSAssigner):
    """ATSSAssigner with the additional positives of :class:`IACAssigner`, for ATSS and GFL.

    The centre of such an anchor lies in the GT box, as ATSS demands of its own positives: its
    centerness is undefined elsewhere. The defaults are those chosen for RetinaNet and have
    not been compared on ATSS.

    Args:
        *args: passed to mmdet's ``ATSSAssigner``.
        score_alpha, score_threshold, min_iou, score_topk: see
            :class:`~.iou_cls_score.IoUClsScoreMixin`.
        **kwargs: passed to mmdet's ``ATSSAssigner``.

    Raises:
        ValueError: a value outside its range.

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

        Args:
            pred_instances, gt_instances, gt_instances_ignore: see :meth:`IACAssigner.assign`.
            num_level_priors: number of anchors on each level.

        Raises:
            TypeError: the head calls as for another kind of assigner.
            ValueError: no probabilities, although ``score_threshold`` is finite.
        """
        if not isinstance(gt_instances, InstanceData):
            raise TypeError(f"IACATSSAssigner cannot be the assigner of this head. {_HEADS}")
        scores = self._scores_of(pred_instances)
        self.scores = None
        priors = get_box_tensor(pred_instances.priors)[:, :4]
        gt_bboxes = get_box_tensor(gt_instances.bboxes)
        pred_for_atss = InstanceData(priors=priors)
        if self.alpha is not None:  # without it mmdet would warn that they are not used
            for name in ("scores", "bboxes"):
                if name in pred_instances:
                    pred_for_atss.set_field(get_box_tensor(pred_instances[name]), name)
            if scores is not None:
                scores = partial(_probabilities_of_logits, scores)
        if gt_instances_ignore is not None:
            ignored = get_box_tensor(gt_instances_ignore.bboxes)
            gt_instances_ignore = InstanceData(bboxes=ignored)
        gt_labels = gt_instances.labels.long()
        gts = InstanceData(bboxes=gt_bboxes, labels=gt_labels)
        try:
            self.iou_calculator.keep_next()  # ATSS's first call compares all pairs
            result = super().assign(pred_for_atss, num_level_priors, gts, gt_instances_ignore)
            overlaps = self.iou_calculator.kept
        finally:
            self.iou_calculator.forget()
        if len(gt_bboxes) == 0 or len(priors) == 0 or not math.isfinite(self.score_threshold):
            return result
        if self.alpha is not None:  # with DDOD's cost it compared predicted boxes
            overlaps = self.iou_calculator(priors, gt_bboxes)
        assert overlaps is not None and scores is not None  # or _scores_of would have raised
        before = result.gt_inds.clone()
        self._add_positives(result, overlaps.T, priors, gt_bboxes, gt_labels, scores, centered=True)
        owner = (result.gt_inds - 1).clamp(min=0)
        own_overlap = overlaps.gather(1, owner[:, None])[:, 0]
        gained = result.gt_inds != before
        result.max_overlaps = torch.where(gained, own_overlap, result.max_overlaps)
        return result


def _probabilities_of_logits(logits: Scores, prior_inds: Tensor, labels: Tensor) -> Tensor:
    """As :func:`~.iou_cls_score.probabilities_of_pairs`, of logits."""
    return probabilities_of_pairs(logits, prior_inds, labels).sigmoid()
