"""SpatialAlignAssigner: positives where both losses are small and agree.

`Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object Detection`
(arXiv 2112.08902).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import TASK_UTILS
from mmdet.utils import ConfigType
from torch import Tensor

from ....utils.validation import check_choice, check_count
from .ambiguity import BatchAssignResult, resolve_ambiguity
from .batch_assigner import BatchAssigner
from .candidates import BatchGroundTruth, CandidatePairs, TopCandidates, build_candidate_pairs
from .fitness_misalignment import (
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
from .joint_loss import joint_loss

LEVEL_MODES = ("loss", "regress_range")
FCOS_RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))


@TASK_UTILS.register_module()
class SpatialAlignAssigner(BatchAssigner):
    """Positives by a mixture over fitness and misalignment of the two losses.

    `Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object Detection`,
    whose last version calls this assigner Aligned Points Sampler. Per GT, the ``num_levels`` levels
    of least mean joint loss are kept, with the ``topk`` best in-box locations of each. A Gaussian
    mixture over the cost ``sqrt(S_f * S_m)`` of these locations finds the positives. An ambiguous
    location goes to the GT of least cost.

    Args:
        topk: candidates per GT and level, at least 1.
        num_levels: levels per GT, l* of the paper, 1 to ``MAX_LEVELS``.
        level_mode: ``'loss'`` (the paper), or ``'regress_range'``: only the level whose range holds
            the location's longest distance to a side of the GT box, as in FCOS.
        regress_ranges: least and largest such distance of each level, in pixels. Levels beyond the
            last range use that one; of fewer levels the last one reaches to the end of all ranges.
        fitness: what the cost is made of. ``'sum'``: the losses themselves; ``'softmax'``: their
            softmax over the candidates of a GT, as a published summary words it.
        cost_scale: factor on the costs that the mixture is fitted to, above 0; with
            ``precisions_init=1`` it decides how finely the mixture can separate.
        separation: see :class:`~.batch_assigner.BatchAssigner`; the default is the authors'.
        loss_bbox: see :class:`~.batch_assigner.BatchAssigner`; mmdet's ``GIoULoss`` by default.
        **kwargs: passed to :class:`~.batch_assigner.BatchAssigner`. ``prior_format`` must be
            ``'point'``, with strides.

    Raises:
        ValueError: a value outside its range.

    Example:
        A config of mmdet's RTMDet with this assigner::

            _base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
            custom_imports = dict(imports=['misalign_det'])
            model = dict(train_cfg=dict(assigner=dict(
                _delete_=True, type='SpatialAlignAssigner', topk=9, num_levels=2)))
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
        **kwargs: Any,
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
        check_count("topk", topk)
        check_count("num_levels", num_levels, most=MAX_LEVELS)
        ranges = tuple(tuple(pair) for pair in regress_ranges)
        if not ranges or not all(len(pair) == 2 and pair[0] < pair[1] for pair in ranges):
            raise ValueError(
                f"regress_ranges must be pairs (least, largest distance), not {regress_ranges}."
            )
        if cost_scale <= 0:
            raise ValueError(f"cost_scale must be positive, not {cost_scale}.")
        self.topk = topk
        self.num_levels = num_levels
        self.level_mode = level_mode
        self.regress_ranges = ranges
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
        pairs = build_candidate_pairs(points, gts)
        cls_loss, reg_loss = self._pair_losses(pairs, logits, bboxes, gts)
        candidates = self._candidates(pairs, cls_loss, reg_loss, points, strides, gts)
        candidates = self._rank_by_cost(candidates, cls_loss, reg_loss)
        thresholds, means = self._split_by_mixture(candidates, self.cost_scale)
        result = resolve_ambiguity(candidates, thresholds, len(logits), "argmin")
        result.means = means
        return result

    def _candidates(
        self,
        pairs: CandidatePairs,
        cls_loss: Tensor,
        reg_loss: Tensor,
        points: Tensor,
        strides: Tensor,
        gts: BatchGroundTruth,
    ) -> TopCandidates:
        """The best locations of each GT on its levels l*, ``(G, num_levels * topk)``.

        Args:
            pairs: E pairs.
            cls_loss, reg_loss: of each, ``(E,)``.
            points, strides: see :meth:`~.batch_assigner.BatchAssigner.assign_batch`.
            gts: the batch's ground truths.
        """
        losses, levels = joint_loss(cls_loss, reg_loss), level_of_priors(strides)
        if self.level_mode == "regress_range":
            location = pairs.prior_inds % len(points)
            ranges = self._ranges(levels)
            in_range = within_regress_range(
                points[location],
                gts.bboxes[pairs.gt_inds],
                levels[location].clamp(max=len(ranges) - 1),
                ranges,
            )
            losses = losses.masked_fill(~in_range, float("inf"))
        per_level = candidates_per_level(pairs, losses, levels, self.topk)
        return gather_levels(per_level, select_levels(per_level.losses, self.num_levels))

    def _ranges(self, levels: Tensor) -> Tensor:
        """Least and largest distance of each range in pixels, ``(R, 2)``.

        That of the coarsest level reaches to the end of the last range, as in FCOS.

        Args:
            levels: level index of each location, ``(P,)``.
        """
        ranges = levels.new_tensor(self.regress_ranges, dtype=torch.float32)
        coarsest = F.pad(levels, (0, 1)).amax()
        last = torch.arange(len(ranges), device=levels.device) >= coarsest
        return torch.stack([ranges[:, 0], torch.where(last, ranges[-1, 1], ranges[:, 1])], dim=1)

    def _rank_by_cost(
        self, candidates: TopCandidates, cls_loss: Tensor, reg_loss: Tensor
    ) -> TopCandidates:
        """The same candidates with the alignment cost in place of the loss, ascending in it.

        Args:
            candidates: ``(G, num_levels * topk)``.
            cls_loss, reg_loss: of each pair, ``(E,)``.
        """
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
