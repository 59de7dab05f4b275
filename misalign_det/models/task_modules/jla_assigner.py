"""JLAAssigner: joint-loss-aware dynamic label assignment (paper B, section 3.2)."""

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData
from torch import Tensor

from ..choices import check_choice
from .ambiguity import AMBIGUOUS_MODES, PositiveEdges, one_gt_per_location, resolve_ambiguity
from .candidate_edges import BatchGroundTruth, build_candidate_edges, select_top_candidates
from .joint_loss import edge_joint_loss
from .mixture import BOUNDARIES, fit_mixture, positive_threshold
from .training_stage import training_progress


@TASK_UTILS.register_module()
class JLAAssigner(BaseAssigner):
    """Positives by a two-component mixture over the joint loss of each GT's best candidates.

    `A Triple-head Network with Loss-aware Label Assignment for Object Detection`, section 3.2.
    Per GT, the ``topk`` in-box locations of least ``L_cls + alpha * L_reg`` over all levels go to
    a Gaussian mixture; those up to the low component's boundary are positive. Locations that
    several GTs claim are weighted in the first part of training and go to the least loss later.

    Args:
        topk: candidates a GT, k of table 1.
        alpha: weight of the localisation loss (eq. 2).
        theta: weight threshold for two GTs (eq. 6). Below 0.5 ambiguous locations go to the GT of
            least loss throughout (section 4.3.2).
        ambiguous: ``'soft'``, ``'ignore'`` or ``'argmin'``; see
            :func:`~misalign_det.models.task_modules.ambiguity.resolve_ambiguity`.
        weighted_until: share of training after which ``'argmin'`` takes over; 0 never weighted,
            1 always. Read each step from the runner's own counters, so a resumed run is in the
            right stage. The paper gives no figure.
        boundary: ``'component'`` (paper), ``'density_peak'`` (as PAA) or ``'crossing'``.
        precision_init: start of the mixture's precisions, a number or ``'sample'``.
        center_radius: candidates within this many strides of the GT's centre; ``None`` (paper)
            takes the whole box.
        loss_bbox: config of mmdet's box loss that ranks the candidates.
        focal_alpha, focal_gamma: focal loss that ranks the candidates.
        mixture_backend: ``'batched'`` or ``'sklearn'``.
        score_format: what ``pred_instances.scores`` holds in :meth:`assign`: ``'logits'`` (RTMDet)
            or ``'probs'`` (YOLOX).
        prior_format: ``'point'``, ``(x, y)`` or ``(x, y, stride_x, stride_y)``, or ``'box'``, xyxy
            anchors whose centre is the location.

    Example:
        In any stock config of RTMDet's::

            _base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
            custom_imports = dict(imports=['misalign_det'])
            model = dict(train_cfg=dict(assigner=dict(
                _delete_=True, type='JLAAssigner', score_format='logits')))
    """

    def __init__(
        self,
        *,
        topk: int = 35,
        alpha: float = 1.0,
        theta: float = 0.6,
        ambiguous: str = "soft",
        weighted_until: float = 1 / 3,
        boundary: str = "component",
        precision_init: float | str = 1.0,
        center_radius: float | None = None,
        loss_bbox: ConfigType = None,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        mixture_backend: str = "batched",
        score_format: str = "logits",
        prior_format: str = "point",
    ) -> None:
        if loss_bbox is None:
            loss_bbox = dict(type="IoULoss")
        check_choice("ambiguous", ambiguous, AMBIGUOUS_MODES)
        check_choice("boundary", boundary, BOUNDARIES)
        check_choice("score_format", score_format, ("logits", "probs"))
        check_choice("prior_format", prior_format, ("point", "box"))
        if topk < 1:
            raise ValueError(f"topk must be at least 1, not {topk}.")
        if not 0 <= weighted_until <= 1:
            raise ValueError(
                f"weighted_until is a share of training in [0, 1], not {weighted_until}."
            )
        self.topk = topk
        self.alpha = alpha
        self.theta = theta
        self.ambiguous = ambiguous
        self.weighted_until = weighted_until
        self.boundary = boundary
        self.precision_init = precision_init
        self.center_radius = center_radius
        self.loss_bbox = MODELS.build(loss_bbox)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.mixture_backend = mixture_backend
        self.score_format = score_format
        self.prior_format = prior_format

    def ambiguous_mode(self) -> str:
        """The treatment of ambiguous locations at this point of training."""
        weighted = training_progress() < self.weighted_until and self.theta >= 0.5
        return self.ambiguous if weighted else "argmin"

    @torch.no_grad()
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
            points: location centres in pixels, ``(P, 2)``.
            strides: their strides, ``(P,)``; needed with ``center_radius`` only.
            logits: ``(N, P, C)``.
            bboxes: predicted boxes, xyxy in pixels, ``(N, P, 4)``.
            gts: ground truths of the batch.
        """
        with torch.autocast(points.device.type, enabled=False):
            logits, bboxes = logits.flatten(0, 1), bboxes.flatten(0, 1)
            edges = build_candidate_edges(points.float(), gts, strides, self.center_radius)
            losses = edge_joint_loss(
                edges,
                logits,
                bboxes,
                gts,
                self.loss_bbox,
                self.alpha,
                self.focal_alpha,
                self.focal_gamma,
            )
            candidates = select_top_candidates(edges, losses, self.topk)
            fit = fit_mixture(
                candidates.losses, candidates.valid, self.precision_init, self.mixture_backend
            )
            thresholds = positive_threshold(candidates.losses, fit, self.boundary)
            return resolve_ambiguity(
                candidates, thresholds, len(logits), self.theta, self.ambiguous_mode()
            )

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
            gt_instances_ignore: not used: paper B has no ignored regions.

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
        edges = self.assign_batch(points, strides, logits[None], bboxes[None], gts)
        gt_inds = one_gt_per_location(edges, gts, [len(gts.bboxes)], len(points))
        return _to_assign_result(gt_inds, bboxes, gts, edges)

    def _points_and_strides(self, priors: Tensor) -> tuple:
        if self.prior_format == "box":
            if self.center_radius is not None:
                raise ValueError(
                    "center_radius needs strides, which priors of format 'box' do "
                    "not carry. Use center_radius=None."
                )
            return (priors[:, :2] + priors[:, 2:]) / 2, None
        return priors[:, :2], priors[:, 2] if priors.shape[1] > 2 else None


def _to_assign_result(
    gt_inds: Tensor, bboxes: Tensor, gts: BatchGroundTruth, edges: PositiveEdges
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
