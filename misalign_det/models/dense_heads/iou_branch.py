"""The branch that predicts the IoU of each box, and the detection score made with it.

The confidence of the Triple-head Network and the quality of Toward Minimal Misalignment: a 3x3
convolution with one output per location, trained by binary cross entropy towards the (G)IoU of the
box with its GT.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import GIoULoss
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ...utils.validation import check_choice
from ..utils.multi_level import join_levels, split_levels
from .dense_targets import DenseTargets
from .float32_logits import at_least_float32

SCORE_MODES = ("product", "geometric_mean", "class")

OLD_IOU_BRANCHES = ("conv_confidence", "conv_quality")  # layers in checkpoints of version 0.1.0


class IoUBranchMixin:
    """Part of :class:`~.loss_aware_fcos_head.LossAwareFCOSHead`, which names its arguments."""

    with_iou_branch: bool
    iou_mode: str
    score_mode: str
    score_alpha: float
    feat_channels: int
    loss_bbox: Any

    def _init_iou_branch(self) -> None:
        if self.with_iou_branch:
            self.conv_iou = nn.Conv2d(self.feat_channels, 1, 3, padding=1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The layer is where it was among the parameters, so that an optimizer's state, which is
        # saved by position, needs no renaming.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            layer, _, rest = key[len(prefix) :].partition(".")
            if layer in OLD_IOU_BRANCHES:
                state_dict[f"{prefix}conv_iou.{rest}"] = state_dict.pop(key)
        # nn.Module's, of the head that this is a part of.
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)  # type: ignore[misc]

    def iou_targets(self, targets: DenseTargets, box_losses: Tensor) -> Tensor:
        """IoU or GIoU of each positive pair's box with its GT, clamped to [0, 1], ``(E,)``.

        Args:
            targets: from :meth:`get_targets`.
            box_losses: ``loss_bbox`` of each pair, ``(E,)``. mmdet's ``GIoULoss`` is ``1 - GIoU``,
                which is then not computed again.
        """
        weight = self.loss_bbox.loss_weight if type(self.loss_bbox) is GIoULoss else 0
        if self.iou_mode == "giou" and weight:
            return (1 - box_losses.detach() / weight).clamp(0, 1)
        return targets.ious(targets.bboxes, self.iou_mode).clamp(0, 1)

    def detection_scores(self, probabilities: Tensor, ious: Tensor | None) -> Tensor:
        """Scores of ``score_mode``, for an export; the detections' own are equal up to rounding.

        Args:
            probabilities: of each class, ``(..., C)``.
            ious: predicted, ``(..., 1)``; None without an IoU branch.

        Returns:
            ``(..., C)``.
        """
        if ious is None or self.score_mode == "class":
            return probabilities
        if self.score_mode == "product":
            return probabilities * ious
        return probabilities**self.score_alpha * ious ** (1 - self.score_alpha)

    def _score_factors(
        self, cls_scores: list[Tensor], iou_preds: list[Tensor] | None, cfg: ConfigDict
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """What mmdet multiplies the sigmoids of, per level, for the score of ``score_mode``.

        Args:
            cls_scores: class logits ``(N, C, H, W)`` per level.
            iou_preds: IoU logits ``(N, 1, H, W)`` per level, or None without an IoU branch.
            cfg: test config; its ``score_thr`` is changed so that it still bounds the class
                probability.
        """
        # mmdet places the priors in this dtype.
        cls_scores = [at_least_float32(level) for level in cls_scores]
        factors = None
        if iou_preds is not None and self.score_mode != "class":
            factors = [at_least_float32(level) for level in iou_preds]
        if factors is not None and self.score_mode == "geometric_mean":
            # mmdet, and what exports it, multiplies the sigmoids of both and compares the first
            # with score_thr: the product of the powers is the weighted geometric mean.
            alpha = self.score_alpha
            cls_scores = logits_of_powers(cls_scores, alpha)
            factors = logits_of_powers(factors, 1 - alpha)
            cfg.score_thr = max(cfg.get("score_thr", 0), 0) ** alpha
        return cls_scores, factors


def check_score_mode(score_mode: str, score_alpha: float, with_iou_branch: bool) -> None:
    """Raise a ValueError for an unknown mode, or one that needs the IoU branch where there is none.

    Args:
        score_mode: one of ``SCORE_MODES``.
        score_alpha: between 0 and 1.
        with_iou_branch: whether the head predicts an IoU.
    """
    check_choice("score_mode", score_mode, SCORE_MODES)
    if not 0 < score_alpha < 1:
        raise ValueError(f"score_alpha lies between 0 and 1, not {score_alpha}.")
    if score_alpha != 0.5 and score_mode != "geometric_mean":
        raise ValueError(f"score_alpha goes with score_mode='geometric_mean', not {score_mode!r}.")
    if not with_iou_branch and score_mode != "class":
        raise ValueError(
            f"score_mode={score_mode!r} needs the IoU branch: with_iou_branch=False goes with "
            "score_mode='class'."
        )


def check_iou_loss(loss: nn.Module) -> None:
    """Raise a ValueError for a loss that does not train a sigmoid towards an IoU.

    Args:
        loss: called with logits, IoUs in [0, 1] and weights, ``(E,)`` each.
    """
    fits = bool(getattr(loss, "use_sigmoid", False))
    try:
        value = loss(torch.zeros(2), torch.full((2,), 0.5), torch.ones(2), avg_factor=2)
        fits = fits and value.ndim == 0
    except Exception:  # whatever a loss raises that expects other targets
        fits = False
    if not fits:
        raise ValueError(
            f"loss_iou is {type(loss).__name__}, which does not train one logit per box towards "
            "its IoU. Binary cross entropy does: dict(type='CrossEntropyLoss', use_sigmoid=True); "
            "use_sigmoid has to be written beside the type."
        )


def logits_of_powers(levels: Sequence[Tensor], exponent: float) -> list[Tensor]:
    """``x`` -> ``logit(sigmoid(x)^exponent)`` of each level, ``(N, D, H, W)``.

    Without a difference of nearly equal numbers, so that it is exact at any logit.

    Args:
        levels: logits.
        exponent: positive.
    """
    x = join_levels(levels)
    # With p = sigmoid(x), q = 1 - p: log(1 - p^e) = log(q) + log((1 - p^e) / q), and the ratio goes
    # to e where q vanishes.
    log_power, q = F.logsigmoid(x) * exponent, (-x).sigmoid()
    tiny = torch.finfo(x.dtype).tiny
    ratio = torch.where(q > tiny, -log_power.expm1() / q.clamp(min=tiny), exponent)
    return split_levels(log_power - F.logsigmoid(-x) - ratio.log(), levels)
