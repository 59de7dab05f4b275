"""JLAAssigner: joint-loss-aware dynamic label assignment.

Section 3.2 of `A Triple-head Network with Loss-aware Label Assignment for Object Detection`.
"""

import math
from typing import Any

from mmdet.registry import TASK_UTILS
from torch import Tensor

from ....utils.validation import check_choice, check_count
from ...utils.training_progress import training_progress
from .ambiguity import AMBIGUOUS_MODES, BatchAssignResult, resolve_ambiguity
from .batch_assigner import BatchAssigner
from .candidates import BatchGroundTruth, build_candidate_pairs, select_top_candidates
from .joint_loss import joint_loss


@TASK_UTILS.register_module()
class JLAAssigner(BatchAssigner):
    """Positives by a two-component mixture over the joint loss of each GT's best candidates.

    `A Triple-head Network with Loss-aware Label Assignment for Object Detection`, section 3.2.
    Per GT, a Gaussian mixture is fitted to the joint losses ``L_cls + alpha * L_reg`` of the
    ``topk`` in-box locations of least joint loss over all levels; those in the low component are
    positive. Ambiguous locations are weighted in the first part of training, and go to the GT
    of least loss later.

    Args:
        topk: candidates per GT, k of table 1, at least 1.
        alpha: weight of the localisation loss (eq. 2), 0 or larger.
        theta: weight threshold for two GTs (eq. 6), in [0, 1]. Below 0.5 ambiguous locations
            always go to the GT of least loss (section 4.3.2).
        ambiguous: ``'soft'``, ``'ignore'`` or ``'argmin'``; see
            :func:`~misalign_det.models.task_modules.assigners.ambiguity.resolve_ambiguity`. mmdet's
            heads read no weights: in them ``'soft'`` is ``'argmin'``, whatever ``theta``, and
            YOLOXHead, which ignores no location, trains those of ``'ignore'`` as background.
        weighted_until: share of the training, in [0, 1], after which ``'argmin'`` takes over. It is
            read at each step from the runner's own counters, so that a resumed run is in the right
            stage. The paper gives no value.
        center_radius: take only candidates within this many strides of the GT's centre along both
            axes; ``None`` (the paper) takes the whole box.
        **kwargs: passed to :class:`~.batch_assigner.BatchAssigner`, whose defaults for
            ``separation`` and ``loss_bbox`` (eq. 2) are the paper's.

    Raises:
        ValueError: a value outside its range.

    Example:
        A config of mmdet's RTMDet with this assigner::

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
        center_radius: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("ambiguous", ambiguous, AMBIGUOUS_MODES)
        check_count("topk", topk)
        if not 0 <= theta <= 1:
            raise ValueError(f"theta is a threshold on weights in [0, 1], not {theta}.")
        if not 0 <= weighted_until <= 1:
            raise ValueError(
                f"weighted_until is a share of training in [0, 1], not {weighted_until}."
            )
        if not 0 <= alpha < math.inf:
            raise ValueError(f"alpha must be 0 or larger, not {alpha}.")
        if center_radius is not None and not center_radius > 0:
            raise ValueError(f"center_radius must be positive or None, not {center_radius}.")
        if center_radius is not None and self.prior_format == "box":
            raise ValueError(
                "center_radius counts in strides, which priors of format 'box' do not carry. Use "
                "prior_format='point'."
            )
        self.topk = topk
        self.alpha = alpha
        self.theta = theta
        self.ambiguous = ambiguous
        self.weighted_until = weighted_until
        self.center_radius = center_radius

    def ambiguous_mode(self) -> str:
        """How ambiguous locations are treated at this point of the training."""
        weighted = training_progress() < self.weighted_until and self.theta >= 0.5
        return self.ambiguous if weighted else "argmin"

    def _assign_batch(
        self,
        points: Tensor,
        strides: Tensor | None,
        logits: Tensor,
        bboxes: Tensor,
        gts: BatchGroundTruth,
    ) -> BatchAssignResult:
        pairs = build_candidate_pairs(points, gts, strides, self.center_radius)
        losses = joint_loss(*self._pair_losses(pairs, logits, bboxes, gts), self.alpha)
        candidates = select_top_candidates(pairs, losses, self.topk)
        thresholds, means = self._split_by_mixture(candidates)
        result = resolve_ambiguity(
            candidates, thresholds, len(logits), self.ambiguous_mode(), self.theta
        )
        result.means = means
        return result
