"""Base class of assigners that see predictions: a batch interface, and mmdet's per image."""

import math
from abc import abstractmethod
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import OptConfigType
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ....utils import has_triton, new_tensor_without_sync
from ....utils.compiler import without_compiler
from ....utils.old_names import renamed_arguments
from ....utils.validation import check_choice
from .ambiguity import BatchAssignResult, one_gt_per_location, reweight_per_gt
from .candidates import BatchGroundTruth, CandidatePairs, TopCandidates
from .gaussian_mixture import (
    BACKENDS,
    SEPARATIONS,
    check_precision,
    fit_mixture,
    positive_threshold,
)
from .joint_loss import pair_losses

NO_WEIGHTS = (
    "per_gt_reweight weights the positives, and mmdet's heads read no weights from an assigner. "
    "Leave it out, or use LossAwareFCOSHead, RFAHead or TripleHead."
)
LEAST_PROB = 1e-6  # probabilities are clamped to [LEAST_PROB, 1 - LEAST_PROB]


@renamed_arguments(
    boundary="separation", precision_init="precisions_init", gt_balance="per_gt_reweight"
)
class BatchAssigner(BaseAssigner):
    """An assigner that reads predictions and decides on (location, GT) pairs.

    This package's heads call :meth:`assign_batch`, where a location may be a positive of several
    GTs; any other head of mmdet that trains through an assigner calls :meth:`assign`. Shapes are
    those of the legend in :mod:`.candidates`.

    Args:
        separation: where the positives of the mixture end: ``'component'``, at the largest cost of
            the low component (`A Triple-head Network with Loss-aware Label Assignment for Object
            Detection`); ``'density_peak'``, at the low component's cost of highest density
            (`Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object
            Detection`, as in PAA); or ``'crossing'``, at the last cost below all those of the high
            component. See :func:`~.gaussian_mixture.positive_threshold`. An assigner without a
            mixture does not read it, nor ``precisions_init`` and ``mixture_backend``.
        loss_bbox: config of one of mmdet's box losses, the ``L_reg`` by which candidates are
            ranked, mmdet's ``IoULoss`` by default. It is called with ``reduction_override='none'``.
        precisions_init: starting precision of the mixture's components, a number or ``'sample'``;
            see :func:`~.gaussian_mixture.fit_mixture`.
        mixture_backend: ``'batched'``, all GTs at once, or ``'sklearn'``, one scikit-learn fit per
            GT on the CPU, for reference.
        per_gt_reweight: how far the weights of GTs with many and with few positives are made equal,
            from 0 (as in the papers: every positive counts the same) to 1 (every GT counts the
            same); see :func:`~.ambiguity.reweight_per_gt`. The total weight over the batches of all
            processes is kept. For this package's heads alone: mmdet's have no weights per location.
        focal_alpha, focal_gamma: of the focal loss, the ``L_cls`` by which candidates are ranked.
        score_format: what ``pred_instances.scores`` holds in :meth:`assign`: ``'logits'`` (RTMDet)
            or ``'probs'`` (YOLOX).
        prior_format: what ``pred_instances.priors`` holds: ``'point'``, ``(x, y)`` or
            ``(x, y, stride_x, stride_y)``, or ``'box'``, xyxy anchors whose centre is the location.

    Raises:
        ValueError: a value outside its range, or a ``loss_bbox`` that does not give one loss per
            box.
    """

    def __init__(
        self,
        *,
        separation: str = "component",
        loss_bbox: OptConfigType = None,
        precisions_init: float | str = 1.0,
        mixture_backend: str = "batched",
        per_gt_reweight: float = 0.0,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        score_format: str = "logits",
        prior_format: str = "point",
    ) -> None:
        check_choice("separation", separation, SEPARATIONS)
        check_choice("score_format", score_format, ("logits", "probs"))
        check_choice("prior_format", prior_format, ("point", "box"))
        check_choice("mixture_backend", mixture_backend, BACKENDS)
        check_precision(precisions_init)
        for name, share in [("per_gt_reweight", per_gt_reweight), ("focal_alpha", focal_alpha)]:
            if not 0 <= share <= 1:
                raise ValueError(f"{name} lies in [0, 1], not {share}.")
        if not 0 <= focal_gamma < math.inf:
            raise ValueError(f"focal_gamma must be 0 or larger, not {focal_gamma}.")
        self.separation = separation
        self.precisions_init = precisions_init
        self.mixture_backend = mixture_backend
        self.per_gt_reweight = per_gt_reweight
        self.loss_bbox = MODELS.build(loss_bbox or dict(type="mmdet.IoULoss"))
        check_box_loss(self.loss_bbox)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.score_format = score_format
        self.prior_format = prior_format

    @without_compiler
    def assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> BatchAssignResult:
        """Assign a whole batch at once, in float32 also under autocast, without gradients.

        With ``per_gt_reweight`` there is one reduction over the processes, also in a batch without
        objects: each process must call this equally often. For host-device synchronisation see
        :func:`~.candidates.build_candidate_pairs`.

        Args:
            points: location centres in pixels, ordered by level, ``(P, 2)``.
            strides: their strides in pixels, ``(P,)``, or ``None`` if unknown.
            logits: classification logits, ``(N, P, C)``.
            bboxes: predicted boxes, xyxy in pixels, ``(N, P, 4)``.
            gts: ground truths of the batch.

        Raises:
            ValueError: the assigner needs strides and there are none.
        """
        # On the CPU autograd's bookkeeping would be a tenth of the time. On a GPU it costs less
        # than copying what inference mode made, one launch per tensor, which autograd would need.
        on_cpu = not points.is_cuda
        without_graph = torch.inference_mode if on_cpu else torch.no_grad
        with without_graph(), torch.autocast(points.device.type, enabled=False):
            result = self._assign_batch(
                points.float(),
                strides if strides is None else strides.float(),
                logits.flatten(0, 1),
                bboxes.flatten(0, 1),
                gts,
            )
            if self.per_gt_reweight:
                result = reweight_per_gt(result, self.per_gt_reweight)
        return result.clone() if on_cpu else result

    @abstractmethod
    def _assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> BatchAssignResult:
        """As :meth:`assign_batch`, with ``logits`` ``(N * P, C)`` and ``bboxes`` ``(N * P, 4)``."""

    def _pair_losses(
        self, pairs: CandidatePairs, logits: Tensor, bboxes: Tensor, gts: BatchGroundTruth
    ) -> tuple[Tensor, Tensor]:
        """``L_cls`` and ``L_reg`` of each pair, ``(E,)``; see :func:`~.joint_loss.pair_losses`."""
        return pair_losses(
            pairs, logits, bboxes, gts, self.loss_bbox, self.focal_alpha, self.focal_gamma
        )

    def _split_by_mixture(
        self, candidates: TopCandidates, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Largest positive cost of each GT, ``(G,)``, and means of its components, ``(G, 2)``.

        Args:
            candidates: ranked by cost.
            scale: factor on the costs that the mixture is fitted to. Both results are in the unit
                of the costs themselves.
        """
        if self.mixture_backend == "batched" and has_triton(candidates.losses):
            from . import gaussian_mixture_triton

            return gaussian_mixture_triton.split(
                candidates.losses, scale, self.precisions_init, self.separation
            )
        fit = fit_mixture(
            candidates.losses * scale, candidates.valid, self.precisions_init, self.mixture_backend
        )
        return positive_threshold(candidates.losses, fit, self.separation), fit.means / scale

    @without_compiler
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AssignResult:
        """mmdet's assigner interface, for one image and any head that trains through it.

        Args:
            pred_instances: ``priors`` (see ``prior_format``), ``scores`` ``(P, C)`` (see
                ``score_format``) and ``bboxes``, xyxy in pixels, ``(P, 4)``. Priors and boxes may
                be of mmdet's box classes.
            gt_instances: ``bboxes``, xyxy in pixels, ``(G, 4)``, and ``labels`` ``(G,)``; see
                :meth:`.BatchGroundTruth.from_instances`.
            gt_instances_ignore: not used: the papers have no ignored regions.
            *args: must be empty; heads that pass more are written for another kind of assigner.
            **kwargs: not used.

        Returns:
            AssignResult with at most one GT per location. ``max_overlaps`` ``(P,)`` is the IoU of
            the location's predicted box with its GT. The attribute ``batch_assign_result`` is the
            :class:`~.ambiguity.BatchAssignResult`, in which a location may have several GTs.

        Raises:
            TypeError: the head gives no predictions, or calls as for another kind of assigner.
            ValueError: the assigner needs strides and the priors carry none; or it has
                ``per_gt_reweight``, which the heads that call this would not read.
        """
        if self.per_gt_reweight:
            raise ValueError(NO_WEIGHTS)
        given = isinstance(gt_instances, InstanceData) and not args
        if not given or any(name not in pred_instances for name in ("scores", "bboxes")):
            raise TypeError(
                f"{type(self).__name__} cannot be the assigner of this head, which does not call "
                "assign(pred_instances, gt_instances, gt_instances_ignore) with priors, scores and "
                "bboxes in pred_instances. It goes with TripleHead, RFAHead or another head "
                "derived from LossAwareFCOSHead, and with mmdet's RTMDetHead and YOLOXHead."
            )
        bboxes = get_box_tensor(pred_instances.bboxes)
        points, strides = self._points_and_strides(get_box_tensor(pred_instances.priors).float())
        logits = pred_instances.scores.float()
        if self.score_format == "probs":
            logits = torch.logit(logits, eps=LEAST_PROB)
        gts = BatchGroundTruth.from_instances([gt_instances])
        result = self.assign_batch(points, strides, logits[None], bboxes[None], gts)
        gt_inds = one_gt_per_location(result, gts, len(points))
        return _to_assign_result(gt_inds, bboxes, gts, result)

    def _points_and_strides(self, priors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Location centres, ``(P, 2)``, and strides, ``(P,)``, of priors in ``prior_format``."""
        if self.prior_format == "box":
            return (priors[:, :2] + priors[:, 2:]) / 2, None
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else None


def check_box_loss(loss: nn.Module, name: str = "loss_bbox") -> None:
    """Check that a box loss of mmdet can rank candidates.

    Args:
        loss: called on two pairs of boxes.
        name: of the argument, for the error.

    Raises:
        ValueError: it does not give one loss per pair of boxes.
    """
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0]])
    message = (
        f"{name} must be one of mmdet's losses on xyxy boxes that gives one loss per pair with "
        f"reduction_override='none', such as 'mmdet.IoULoss' or 'mmdet.GIoULoss'; "
        f"{type(loss).__name__} "
    )
    try:
        found = loss(boxes, boxes.flip(0), reduction_override="none")
    except Exception as error:
        raise ValueError(f"{message}raises {type(error).__name__}: {error}") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"{message}returns a {type(found).__name__}.")
    if found.shape != boxes.shape[:1]:
        raise ValueError(f"{message}returns shape {tuple(found.shape)} for two pairs of boxes.")


def _to_assign_result(
    gt_inds: Tensor, bboxes: Tensor, gts: BatchGroundTruth, batch_result: BatchAssignResult
) -> AssignResult:
    """mmdet's result of one image.

    Args:
        gt_inds: see :func:`~.ambiguity.one_gt_per_location`, ``(P,)``.
        bboxes: predicted boxes, xyxy in pixels, ``(P, 4)``.
        gts: ground truths of the image.
        batch_result: kept as an attribute.
    """
    num_gts = len(gts.bboxes)
    positive = gt_inds > 0
    labels = torch.full_like(gt_inds, -1)
    overlaps = bboxes.new_zeros(len(gt_inds), dtype=torch.float32)
    if num_gts:
        index = (gt_inds - 1).clamp(min=0)
        labels = torch.where(positive, gts.labels[index], labels)
        with new_tensor_without_sync(bboxes):
            iou = bbox_overlaps(bboxes.float(), gts.bboxes[index], is_aligned=True)
        overlaps = torch.where(positive, iou, overlaps)
    result = AssignResult(num_gts, gt_inds, overlaps, labels=labels)
    result.batch_assign_result = batch_result
    return result
