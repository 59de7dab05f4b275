"""Box voting after NMS: each kept box becomes a mean of the boxes of its class around it."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from ...utils.new_tensor import new_tensor_without_sync
from ..utils.blockwise_iou import PAIRS

OPTIONS = ("sigma", "iou_threshold")


def box_voting(
    bboxes: Tensor,
    labels: Tensor,
    candidate_bboxes: Tensor,
    candidate_scores: Tensor,
    candidate_labels: Tensor,
    sigma: float = 0.025,
    iou_threshold: float = 0.01,
) -> Tensor:
    """Replace each kept box by the weighted mean of the candidates of its class.

    Score voting of `Probabilistic Anchor Assignment with IoU Prediction for Object Detection` (Kim
    and Lee, ECCV 2020). The weight of a candidate is ``score * exp(-(1 - IoU)^2 / sigma)``, where
    IoU is that with the kept box. The kept box is a candidate too. The mean is computed in float64,
    so that a box without others around it stays as it is, to the last digit.

    There is no host-device synchronisation. Memory is that of some of the ``(K, n)`` pairs at a
    time.

    Args:
        bboxes: boxes that an NMS kept, xyxy in pixels, ``(K, 4)``.
        labels: their classes, ``(K,)``.
        candidate_bboxes: boxes before that NMS, in the same coordinates, ``(n, 4)``.
        candidate_scores: scores before that NMS, at least 0, ``(n,)``.
        candidate_labels: ``(n,)``. Candidates of another class do not vote.
        sigma: how fast the weight falls with the IoU, positive.
        iou_threshold: only candidates of a larger IoU vote, in [0, 1).

    Returns:
        ``(K, 4)`` boxes in the order and dtype of ``bboxes``. A box for which no candidate votes
        (of area 0, or not finite) stays as it is.

    Raises:
        ValueError: rotated boxes, or an option out of range.

    Example:
        >>> import torch
        >>> from misalign_det.models.post_processing import box_voting
        >>> boxes = torch.tensor([[0., 0., 40., 40.], [2., 0., 42., 40.], [90., 0., 99., 9.]])
        >>> scores, labels = torch.tensor([0.9, 0.6, 0.7]), torch.tensor([0, 0, 0])
        >>> box_voting(boxes[[0, 2]], labels[[0, 2]], boxes, scores, labels)
        tensor([[ 0.6337,  0.0000, 40.6337, 40.0000],
                [90.0000,  0.0000, 99.0000,  9.0000]])
    """
    check_box_voting(dict(sigma=sigma, iou_threshold=iou_threshold))
    if bboxes.shape[-1] != 4 or candidate_bboxes.shape[-1] != 4:
        raise ValueError(
            f"box voting takes axis-aligned boxes (n, 4), not {tuple(candidate_bboxes.shape)}. "
            "Set box_voting=None for rotated boxes."
        )
    if len(bboxes) == 0 or len(candidate_bboxes) == 0:
        return bboxes
    rows = max(PAIRS // len(candidate_bboxes), 1)
    corners = candidate_bboxes.float()
    # A candidate that is not finite has no IoU, but 0 * inf would be NaN.
    values = corners.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    voted = []
    for kept, kept_labels in zip(bboxes.split(rows), labels.split(rows)):
        with new_tensor_without_sync(corners):
            ious = bbox_overlaps(kept.float(), corners)
        votes = (ious > iou_threshold) & (kept_labels[:, None] == candidate_labels)
        weights = candidate_scores.double() * torch.exp((1 - ious.double()).square() / -sigma)
        weights = torch.where(votes, weights, 0.0)
        total = weights.sum(dim=1, keepdim=True)
        voted.append(torch.where(total > 0, (weights @ values) / total, kept.double()))
    return torch.cat(voted).to(bboxes.dtype)


def check_box_voting(options: Any) -> None:
    """Check a ``test_cfg.box_voting``.

    Args:
        options: ``sigma`` and ``iou_threshold`` of :func:`box_voting`, or some of them; None is
            no voting.

    Raises:
        ValueError: it is not a dict, it has another key, or a value is out of range.
    """
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise ValueError(
            f"test_cfg.box_voting must be a dict of {' and '.join(OPTIONS)}, or None for no "
            f"voting, not {options!r}."
        )
    unknown = sorted(set(options) - {*OPTIONS})
    if unknown:
        raise ValueError(
            f"test_cfg.box_voting has no {', '.join(unknown)}; it takes {' and '.join(OPTIONS)}."
        )
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"test_cfg.box_voting.{name} must be a number, not {value!r}.")
    if not 0 < options.get("sigma", 1) < float("inf"):
        raise ValueError(f"test_cfg.box_voting.sigma must be positive, not {options['sigma']}.")
    if not 0 <= options.get("iou_threshold", 0) < 1:
        raise ValueError(
            f"test_cfg.box_voting.iou_threshold must be in [0, 1), not {options['iou_threshold']}."
        )
