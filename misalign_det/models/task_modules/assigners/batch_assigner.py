"""What the assigners of this package share: a batch interface, and mmdet's for one image."""

import math
from abc import abstractmethod

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ....utils import has_triton, new_tensor_without_sync
from ....utils.compiler import without_compiler
from ....utils.renamed import renamed_arguments
from ....utils.validation import check_choice
from ...utils.host_flag import may_look
from .ambiguity import BatchAssignResult, one_gt_per_location
from .candidates import BatchGroundTruth, CandidatePairs, TopCandidates
from .gaussian_mixture import (
    BACKENDS,
    SEPARATIONS,
    check_precision,
    fit_mixture,
    positive_threshold,
)
from .joint_loss import pair_losses
from .per_gt_reweight import reweight_per_gt

LEAST_PROB = 1e-6  # and the distance from 1 of the largest, of scores that are probabilities


@renamed_arguments(
    boundary="separation", precision_init="precisions_init", gt_balance="per_gt_reweight"
)
class BatchAssigner(BaseAssigner):
    """An assigner that reads predictions and decides on (location, GT) pairs.

    This package's heads call :meth:`assign_batch`, where a location may serve several GTs; any
    other head of mmdet that trains through an assigner calls :meth:`assign`.

    Args:
        separation: where the mixture's low component ends: ``'component'`` (paper B: the largest
            cost that is more likely in it), ``'density_peak'`` (paper A, as PAA) or
            ``'crossing'``.
        precisions_init: start of the mixture's precisions, a number or ``'sample'``.
        mixture_backend: ``'batched'`` or ``'sklearn'``.
        per_gt_reweight: evens out what GTs weigh, from 0 (papers: every positive counts the same)
            to 1 (every GT counts the same); see :func:`~.per_gt_reweight.reweight_per_gt`. The
            total is kept: over the batches of all processes in :meth:`assign_batch`, of the image
            in :meth:`assign`, which mmdet's heads call once per image.
        loss_bbox: config of mmdet's box loss that ranks the candidates, ``L_reg``.
        focal_alpha, focal_gamma: focal loss that ranks the candidates, ``L_cls``.
        score_format: what ``pred_instances.scores`` holds in :meth:`assign`: ``'logits'`` (RTMDet)
            or ``'probs'`` (YOLOX).
        prior_format: ``'point'``, ``(x, y)`` or ``(x, y, stride_x, stride_y)``, or ``'box'``, xyxy
            anchors whose centre is the location.

    Raises:
        ValueError: a value outside its range, or a ``loss_bbox`` that gives no loss a box.
    """

    def __init__(
        self,
        *,
        separation: str,
        loss_bbox: ConfigType,
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
        self.loss_bbox = MODELS.build(loss_bbox)
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
        over_processes: bool = True,
    ) -> BatchAssignResult:
        """Assign a whole batch at once, in float32 whatever autocast says.

        With ``per_gt_reweight`` there is one reduction over the processes, whatever the images
        hold: each process must call this equally often.

        Args:
            points: location centres in pixels, level by level, ``(P, 2)``.
            strides: their strides, ``(P,)``, or ``None`` if the priors carry none.
            logits: ``(N, P, C)``.
            bboxes: predicted boxes, xyxy in pixels, ``(N, P, 4)``.
            gts: ground truths of the batch.
            over_processes: ``per_gt_reweight`` keeps the total over all processes; ``False``:
                that of this batch, without a reduction.
        """
        # On the CPU autograd's bookkeeping would be a tenth of the time. On a GPU it costs less
        # than the copies, a launch each, that autograd needs of what inference mode made.
        on_cpu = may_look(points)
        without_graph = torch.inference_mode if on_cpu else torch.no_grad
        with without_graph(), torch.autocast(points.device.type, enabled=False):
            edges = self._assign_batch(
                points.float(),
                strides if strides is None else strides.float(),
                logits.flatten(0, 1),
                bboxes.flatten(0, 1),
                gts,
            )
            if self.per_gt_reweight:
                edges = reweight_per_gt(edges, self.per_gt_reweight, over_processes)
        return edges.clone() if on_cpu else edges

    @abstractmethod
    def _assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> BatchAssignResult:
        """As :meth:`assign_batch`, predictions of the whole batch joined, ``(N * P, ...)``."""

    def _pair_losses(
        self, edges: CandidatePairs, logits: Tensor, bboxes: Tensor, gts: BatchGroundTruth
    ) -> tuple[Tensor, Tensor]:
        """``L_cls`` and ``L_reg`` of each edge, ``(E,)``."""
        return pair_losses(
            edges, logits, bboxes, gts, self.loss_bbox, self.focal_alpha, self.focal_gamma
        )

    def _split_by_mixture(
        self, candidates: TopCandidates, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Each GT's largest positive cost and the means of its components, ``(G,)``, ``(G, 2)``.

        Args:
            candidates: ranked by cost.
            scale: what the mixture sees is the cost times this.
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
        *args,
        **kwargs,
    ) -> AssignResult:
        """mmdet's assigner interface, for one image and any head that trains through it.

        Args:
            pred_instances: ``priors`` ``(P, 2 or 4)``, ``scores`` ``(P, C)`` and ``bboxes``
                ``(P, 4)``; priors and boxes may be of mmdet's box classes.
            gt_instances: ``bboxes`` ``(G, 4)``, ``labels`` ``(G,)``; see
                :meth:`BatchGroundTruth.from_instances`.
            gt_instances_ignore: not used: the papers have no ignored regions.
            **kwargs: not used: what a head hands to any assigner.

        Returns:
            AssignResult with one GT a location. ``max_overlaps`` holds the IoU of the location's
            predicted box with its GT, and the attribute ``batch_assign_result`` the
            :class:`BatchAssignResult`, where a location may have several.

        Raises:
            TypeError: the head gives no predictions, or calls as for another kind of assigner.
        """
        given = isinstance(gt_instances, InstanceData) and not args
        if not given or any(name not in pred_instances for name in ("scores", "bboxes")):
            raise TypeError(
                f"{type(self).__name__} cannot be the assigner of this head, which does not call "
                "assign(pred_instances, gt_instances, gt_instances_ignore) with priors, scores and "
                "bboxes in pred_instances. It goes with TripleHead, RFAHead, LossAwareFCOSHead, "
                "and mmdet's RTMDetHead and YOLOXHead."
            )
        bboxes = get_box_tensor(pred_instances.bboxes)
        points, strides = self._points_and_strides(get_box_tensor(pred_instances.priors).float())
        logits = pred_instances.scores.float()
        if self.score_format == "probs":
            logits = torch.logit(logits, eps=LEAST_PROB)
        gts = BatchGroundTruth.from_instances([gt_instances])
        edges = self.assign_batch(
            points, strides, logits[None], bboxes[None], gts, over_processes=False
        )
        gt_inds = one_gt_per_location(edges, gts, len(points))
        return _to_assign_result(gt_inds, bboxes, gts, edges)

    def _points_and_strides(self, priors: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.prior_format == "box":
            return (priors[:, :2] + priors[:, 2:]) / 2, None
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else None


def check_box_loss(loss: nn.Module) -> None:
    """Raise a ValueError unless a box loss of mmdet's gives one loss for each pair of boxes."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 5.0, 4.0]])
    wanted = (
        f"loss_bbox must be a loss of mmdet's on xyxy boxes that gives one loss a pair with "
        f"reduction_override='none', such as 'mmdet.IoULoss' or 'mmdet.GIoULoss'; "
        f"{type(loss).__name__} "
    )
    try:
        found = loss(boxes, boxes.flip(0), reduction_override="none")
    except Exception as error:
        raise ValueError(f"{wanted}raises {type(error).__name__}: {error}") from error
    if not isinstance(found, Tensor):
        raise ValueError(f"{wanted}returns a {type(found).__name__}.")
    if found.shape != boxes.shape[:1]:
        raise ValueError(f"{wanted}returns shape {tuple(found.shape)} for two pairs of boxes.")


def _to_assign_result(
    gt_inds: Tensor, bboxes: Tensor, gts: BatchGroundTruth, edges: BatchAssignResult
) -> AssignResult:
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
    result.batch_assign_result = edges
    return result
