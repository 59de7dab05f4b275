"""SpatialAlignAssigner: positives where both tasks fit and agree (paper A)."""

from collections.abc import Sequence

import torch
from mmdet.registry import TASK_UTILS
from mmdet.utils import ConfigType
from torch import Tensor

from ....utils.validation import check_choice
from .ambiguity import BatchAssignResult, resolve_ambiguity
from .batch_assigner import BatchAssigner
from .candidates import BatchGroundTruth, CandidatePairs, TopCandidates, build_candidate_pairs
from .joint_loss import joint_loss
from .spatial_alignment import (
    FITNESS_MODES,
    MAX_LEVELS,
    alignment_cost,
    candidates_per_level,
    fitness,
    gather_levels,
    level_of_priors,
    select_levels,
    within_regress_range,
)

LEVEL_MODES = ("loss", "regress_range")
FCOS_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))


@TASK_UTILS.register_module()
class SpatialAlignAssigner(BatchAssigner):
    """Positives by a mixture over fitness and misalignment of the two losses.

    Paper A, arXiv 2112.08902. Per GT the ``num_levels`` levels of least mean joint loss are kept,
    with the ``topk`` best in-box locations of each; a Gaussian mixture over
    ``sqrt(S_f * S_m)`` of these locations finds the positives. A location that several GTs want
    goes to the one of least cost.

    Args:
        topk: candidates a GT and level.
        num_levels: levels a GT, l* of the paper.
        level_mode: ``'loss'`` (paper) or ``'regress_range'``: FCOS's fixed ranges of the longest
            distance say which levels a location may serve.
        regress_ranges: those ranges in pixels, one pair a level.
        fitness: ``'sum'``: the losses as they are; ``'softmax'``: each task's losses as shares of
            a GT's candidates, the published summary's wording.
        cost_scale: factor on the cost that the mixture sees; with ``precisions_init=1`` it decides
            how finely the mixture can separate.
        separation, others: see :class:`BatchAssigner`; priors must carry strides.
        loss_bbox: as there; mmdet's ``GIoULoss`` if not given.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        bbox_head = dict(
            type='RFAHead', num_classes=80, in_channels=256, strides=[8, 16, 32, 64, 128])
        train_cfg = dict(assigner=dict(type='SpatialAlignAssigner', topk=9, num_levels=2))
    """

    def __init__(
        self,
        *,
        topk: int = 9,
        num_levels: int = 2,
        level_mode: str = "loss",
        regress_ranges: Sequence[tuple[float, float]] = FCOS_RANGES,
        fitness: str = "sum",
        cost_scale: float = 10.0,
        separation: str = "density_peak",
        loss_bbox: ConfigType = None,
        **kwargs,
    ) -> None:
        super().__init__(
            separation=separation, loss_bbox=loss_bbox or dict(type="mmdet.GIoULoss"), **kwargs
        )
        check_choice("level_mode", level_mode, LEVEL_MODES)
        check_choice("fitness", fitness, FITNESS_MODES)
        if self.prior_format == "box":
            raise ValueError(
                "SpatialAlignAssigner chooses levels by their strides, which priors of format "
                "'box' do not carry. Use prior_format='point'."
            )
        if topk < 1 or not 1 <= num_levels <= MAX_LEVELS:
            raise ValueError(
                f"topk must be at least 1 and num_levels between 1 and {MAX_LEVELS}, "
                f"not {topk} and {num_levels}."
            )
        if cost_scale <= 0:
            raise ValueError(f"cost_scale must be positive, not {cost_scale}.")
        self.topk = topk
        self.num_levels = num_levels
        self.level_mode = level_mode
        self.regress_ranges = tuple(regress_ranges)
        self.fitness = fitness
        self.cost_scale = cost_scale

    def _assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> BatchAssignResult:
        if strides is None:
            raise ValueError(
                "SpatialAlignAssigner needs the strides of the priors: (x, y, stride, stride)."
            )
        edges = build_candidate_pairs(points, gts)
        cls_loss, reg_loss = self._pair_losses(edges, logits, bboxes, gts)
        candidates = self._candidates(edges, cls_loss, reg_loss, points, strides, gts)
        candidates = self._rank_by_cost(candidates, cls_loss, reg_loss)
        thresholds, means = self._split_by_mixture(candidates, self.cost_scale)
        # The least cost decides: no theta is read.
        positives = resolve_ambiguity(candidates, thresholds, len(logits), 0.0, "argmin")
        positives.means = means
        return positives

    def _candidates(
        self,
        edges: CandidatePairs,
        cls_loss: Tensor,
        reg_loss: Tensor,
        points: Tensor,
        strides: Tensor,
        gts: BatchGroundTruth,
    ) -> TopCandidates:
        """The best locations of each GT at its levels l*, ``(G, num_levels * topk)``."""
        losses, levels = joint_loss(cls_loss, reg_loss), level_of_priors(strides)
        if self.level_mode == "regress_range":
            location = edges.prior_inds % len(points)
            ranges = points.new_tensor(self.regress_ranges, dtype=torch.float32)
            in_range = within_regress_range(
                points[location],
                gts.bboxes[edges.gt_inds],
                levels[location].clamp(max=len(ranges) - 1),
                ranges,
            )
            losses = losses.masked_fill(~in_range, float("inf"))
        per_level = candidates_per_level(edges, losses, levels, self.topk)
        return gather_levels(per_level, select_levels(per_level.losses, self.num_levels))

    def _rank_by_cost(
        self, candidates: TopCandidates, cls_loss: Tensor, reg_loss: Tensor
    ) -> TopCandidates:
        """The same candidates with the alignment cost for the loss, ascending."""
        if len(cls_loss) == 0:
            return candidates
        terms = fitness(
            cls_loss[candidates.pair_inds],
            reg_loss[candidates.pair_inds],
            candidates.valid,
            self.fitness,
        )
        cost = torch.where(candidates.valid, alignment_cost(*terms), float("inf"))
        cost, order = cost.sort(dim=1, stable=True)
        return TopCandidates(
            cost,
            candidates.prior_inds.gather(1, order),
            cost < float("inf"),
            candidates.pair_inds.gather(1, order),
        )
