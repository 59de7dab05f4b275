"""What the assigners of this package share: a batch interface, and mmdet's for one image."""

from abc import abstractmethod

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor

from ..choices import check_choice
from .ambiguity import PositiveEdges, one_gt_per_location
from .candidate_edges import BatchGroundTruth, CandidateEdges, TopCandidates
from .gt_balance import balance_gts
from .joint_loss import edge_losses
from .mixture import BOUNDARIES, fit_mixture, positive_threshold


class EdgeAssigner(BaseAssigner):
    """An assigner that reads predictions and decides on (location, GT) pairs.

    This package's heads call :meth:`assign_batch`, where a location may serve several GTs; any
    other head of mmdet that trains through an assigner calls :meth:`assign`.

    Args:
        boundary: where the mixture's low component ends: ``'component'`` (paper B: the largest cost
            that is more likely in it), ``'density_peak'`` (paper A, as PAA) or ``'crossing'``.
        precision_init: start of the mixture's precisions, a number or ``'sample'``.
        mixture_backend: ``'batched'`` or ``'sklearn'``.
        gt_balance: evens out what GTs weigh, from 0 (papers: every positive counts the same) to 1
            (every GT counts the same); see :func:`~.gt_balance.balance_gts`.
        loss_bbox: config of mmdet's box loss that ranks the candidates, ``L_reg``.
        focal_alpha, focal_gamma: focal loss that ranks the candidates, ``L_cls``.
        score_format: what ``pred_instances.scores`` holds in :meth:`assign`: ``'logits'`` (RTMDet)
            or ``'probs'`` (YOLOX).
        prior_format: ``'point'``, ``(x, y)`` or ``(x, y, stride_x, stride_y)``, or ``'box'``, xyxy
            anchors whose centre is the location.
    """

    def __init__(
        self,
        *,
        boundary: str,
        loss_bbox: ConfigType,
        precision_init: float | str = 1.0,
        mixture_backend: str = "batched",
        gt_balance: float = 0.0,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        score_format: str = "logits",
        prior_format: str = "point",
    ) -> None:
        check_choice("boundary", boundary, BOUNDARIES)
        check_choice("score_format", score_format, ("logits", "probs"))
        check_choice("prior_format", prior_format, ("point", "box"))
        if not 0 <= gt_balance <= 1:
            raise ValueError(f"gt_balance lies in [0, 1], not {gt_balance}.")
        self.boundary = boundary
        self.precision_init = precision_init
        self.mixture_backend = mixture_backend
        self.gt_balance = gt_balance
        self.loss_bbox = MODELS.build(loss_bbox)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.score_format = score_format
        self.prior_format = prior_format

    def assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> PositiveEdges:
        """Assign a whole batch at once, in float32 whatever autocast says.

        Args:
            points: location centres in pixels, level by level, ``(P, 2)``.
            strides: their strides, ``(P,)``, or ``None`` if the priors carry none.
            logits: ``(N, P, C)``.
            bboxes: predicted boxes, xyxy in pixels, ``(N, P, 4)``.
            gts: ground truths of the batch.
        """
        # Two hundred small operations: autograd's books would be a tenth of their time.
        with torch.inference_mode(), torch.autocast(points.device.type, enabled=False):
            edges = self._positive_edges(
                points.float(), strides, logits.flatten(0, 1), bboxes.flatten(0, 1), gts
            )
            if self.gt_balance:
                edges = balance_gts(edges, self.gt_balance)
        return edges.clone()

    @abstractmethod
    def _positive_edges(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> PositiveEdges:
        """As :meth:`assign_batch`, predictions of the whole batch joined, ``(N * P, ...)``."""

    def _edge_losses(
        self, edges: CandidateEdges, logits: Tensor, bboxes: Tensor, gts: BatchGroundTruth
    ) -> tuple[Tensor, Tensor]:
        """``L_cls`` and ``L_reg`` of each edge, ``(E,)``."""
        return edge_losses(
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
        fit = fit_mixture(
            candidates.losses * scale, candidates.valid, self.precision_init, self.mixture_backend
        )
        return positive_threshold(candidates.losses, fit, self.boundary), fit.means / scale

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        """mmdet's assigner interface, for one image and any head that trains through it.

        Args:
            pred_instances: ``priors`` ``(P, 2 or 4)``, ``scores`` ``(P, C)`` and ``bboxes``
                ``(P, 4)``.
            gt_instances: ``bboxes`` ``(G, 4)``, ``labels`` ``(G,)``.
            gt_instances_ignore: not used: the papers have no ignored regions.

        Returns:
            AssignResult with one GT a location. ``max_overlaps`` holds the IoU of the location's
            predicted box with its GT, and the attribute ``positive_edges`` the
            :class:`PositiveEdges`, where a location may have several.
        """
        priors, bboxes = pred_instances.priors, pred_instances.bboxes
        points, strides = self._points_and_strides(priors)
        scores = pred_instances.scores.float()
        logits = scores if self.score_format == "logits" else torch.logit(scores, eps=1e-6)
        gts = BatchGroundTruth.from_instances([gt_instances])
        if len(points) == 0:
            return _to_assign_result(points.new_zeros(0, dtype=torch.long), bboxes, gts, None)
        edges = self.assign_batch(points, strides, logits[None], bboxes[None], gts)
        gt_inds = one_gt_per_location(edges, gts, [len(gts.bboxes)], len(points))
        return _to_assign_result(gt_inds, bboxes, gts, edges)

    def _points_and_strides(self, priors: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.prior_format == "box":
            return (priors[:, :2] + priors[:, 2:]) / 2, None
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else None


def _to_assign_result(
    gt_inds: Tensor, bboxes: Tensor, gts: BatchGroundTruth, edges: PositiveEdges | None
) -> AssignResult:
    num_gts = len(gts.bboxes)
    positive = gt_inds > 0
    labels = torch.full_like(gt_inds, -1)
    overlaps = bboxes.new_zeros(len(gt_inds), dtype=torch.float32)
    if num_gts:
        index = (gt_inds - 1).clamp(min=0)
        labels = torch.where(positive, gts.labels[index], labels)
        iou = bbox_overlaps(bboxes.float(), gts.bboxes[index], is_aligned=True)
        overlaps = torch.where(positive, iou, overlaps)
    result = AssignResult(num_gts, gt_inds, overlaps, labels=labels)
    result.positive_edges = edges
    return result
