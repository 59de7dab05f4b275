"""How the detection score combines class probability and predicted IoU."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ...utils.validation import check_choice
from ..utils.multi_level import join_levels, split_levels

SCORE_MODES = ("product", "geometric_mean", "class")


def check_score_mode(score_mode: str, with_iou_branch: bool) -> None:
    """Raise a ValueError for an unknown mode, or one that needs the IoU branch where there is none.

    Args:
        score_mode: one of ``SCORE_MODES``.
        with_iou_branch: whether the head predicts an IoU.
    """
    check_choice("score_mode", score_mode, SCORE_MODES)
    if not with_iou_branch and score_mode != "class":
        raise ValueError(
            f"score_mode={score_mode!r} needs the IoU branch: with_iou_branch=False goes with "
            "score_mode='class'."
        )


def logits_of_roots(levels: Sequence[Tensor]) -> list[Tensor]:
    """``x`` -> ``logit(sqrt(sigmoid(x)))`` of each level, ``(N, D, H, W)``.

    Without a difference of nearly equal numbers, so that it is exact at any logit.
    """
    x = join_levels(levels)
    # With s the root: log(s / (1 - s)) = log(s) + log(1 + s) - log(1 - s * s).
    out = F.logsigmoid(x) / 2 + x.sigmoid().sqrt().log1p() - F.logsigmoid(-x)
    return split_levels(out, levels)
