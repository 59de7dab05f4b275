"""CLBalancedNMS: suppression that weighs where the boxes agree (paper C, eq. 6 and 7)."""

from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from ..choices import check_choice
from .clusters import suppressor_ranks

mmcv_nms = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

CLOSENESS_MODES = ("gaussian", "linear", "literal")
OUTPUT_SCORES = ("own", "best", "selection")


def cl_balanced_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    offset: int = 0,
    score_threshold: float = 0,
    max_num: int = -1,
    gamma: float = 0.3,
    sigma: float = 0.1,
    closeness: str = "gaussian",
    output_score: str = "own",
) -> tuple[Tensor, Tensor]:
    """Classification-localisation-balanced NMS (paper C).

    Greedy NMS first. A kept box and those it suppresses are a cluster; eq. 6 gives its centre, the
    mean of the boxes' centres weighted by the softmax of their scores. The box of the cluster with
    the largest selection score takes the place of the kept one (eq. 7): its own score plus
    ``gamma`` times its closeness to that centre. Reachable from any config of mmdet's as
    ``CLBalancedNMS``; see the example.

    Args:
        boxes: xyxy in pixels, ``(n, 4)``.
        scores: in [0, 1], ``(n,)``.
        iou_threshold, offset, score_threshold, max_num: as in ``mmcv.ops.nms``.
        gamma: weight of the closeness; 0 is ``mmcv.ops.nms`` itself.
        sigma: with ``'gaussian'``, distance that counts, in diagonals of the greedily kept box.
            Boxes of one cluster overlap, so distances of some hundredths matter.
        closeness: ``'gaussian'``: ``exp(-(d / (sigma * diagonal))^2)``; ``'linear'``:
            ``1 - d / diagonal``; ``'literal'``: ``d / diagonal``, the bare sum of eq. 7, which
            rewards outliers.
        output_score: of the box that is kept: its ``'own'`` score, the ``'best'`` of its cluster,
            or the ``'selection'`` score (above 1 with a large gamma).

    Returns:
        ``(dets, keep)``: ``(k, 5)`` boxes with score, descending in score, and their indices.

    Raises:
        ValueError: rotated boxes, NaN or infinite input, bad options.

    Example:
        In the ``test_cfg`` of any config of mmdet's::

            custom_imports = dict(imports=['misalign_det'])
            model = dict(test_cfg=dict(nms=dict(type='CLBalancedNMS', iou_threshold=0.6)))
    """
    _check(boxes, scores, iou_threshold, gamma, sigma, closeness, output_score)
    if gamma == 0 and output_score != "selection":  # the cluster's best is then the kept box
        return mmcv_nms.nms(boxes, scores, iou_threshold, offset, score_threshold, max_num)
    _, kept = mmcv_nms.nms(boxes, scores, iou_threshold, offset, score_threshold)
    keep, out = _balance(
        *(part.detach().cpu().numpy() for part in (boxes.float(), scores.float(), kept)),
        iou_threshold,
        offset,
        score_threshold,
        lambda distance: gamma * _closeness(distance, sigma, closeness),
        output_score,
    )
    if max_num > 0:
        keep, out = keep[:max_num], out[:max_num]
    keep, out = torch.from_numpy(keep).to(kept), torch.from_numpy(out).to(scores)
    return torch.cat([boxes[keep], out[:, None]], dim=1), keep


def _balance(boxes, scores, kept, iou_threshold, offset, score_threshold, bonus, output_score):
    """Replace each kept box by the best of its cluster; ``(keep, output scores)`` by score."""
    rest = scores > score_threshold if score_threshold > 0 else np.ones(len(boxes), bool)
    rest[kept] = False
    others = np.flatnonzero(rest)
    ranks = suppressor_ranks(boxes, kept, others, iou_threshold, offset)
    found = ranks < len(kept)
    # The kept boxes come first, so that a tie leaves things as they were.
    members = np.concatenate([kept, others[found]])
    ranks = np.concatenate([np.arange(len(kept)), ranks[found]])
    score = scores[members]
    distance = _relative_distance(boxes[members], score, ranks, len(kept))
    selection = score + bonus(distance).astype(score.dtype)
    order = np.lexsort((-selection, ranks))
    best = order[np.searchsorted(ranks[order], np.arange(len(kept)))]
    keep = members[best]
    out = {"own": scores[keep], "best": scores[kept], "selection": selection[best]}[output_score]
    order = np.argsort(-out, kind="stable")
    return keep[order], out[order]


def _relative_distance(boxes, scores, ranks, num: int) -> np.ndarray:
    """Distance from eq. 6's centre of its cluster in diagonals of the kept box, ``(n,)``.

    The centre is the mean of the boxes' centres weighted by the softmax of their scores. Taken
    relative to the kept box, so that centres far out keep their precision.
    """
    shift = (boxes[:, :2] + boxes[:, 2:]) / 2
    shift = shift - shift[:num][ranks]
    weights = np.exp(scores - scores[:num][ranks])
    total = np.bincount(ranks, weights, num)
    middle = np.stack([np.bincount(ranks, weights * axis, num) / total for axis in shift.T], 1)
    size = boxes[:num, 2:] - boxes[:num, :2]
    diagonal = np.maximum(np.hypot(size[:, 0], size[:, 1]), 1e-6)
    away = shift - middle[ranks]
    return np.hypot(away[:, 0], away[:, 1]) / diagonal[ranks]


def _closeness(distance: np.ndarray, sigma: float, mode: str) -> np.ndarray:
    """Second term of eq. 7, ``(n,)``, from a distance in diagonals of the kept box."""
    if mode == "gaussian":
        return np.exp(-((distance / sigma) ** 2))
    return 1 - distance if mode == "linear" else distance


def _check(boxes, scores, iou_threshold, gamma, sigma, closeness, output_score) -> None:
    check_choice("closeness", closeness, CLOSENESS_MODES)
    check_choice("output_score", output_score, OUTPUT_SCORES)
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], not {iou_threshold}.")
    if gamma < 0 or sigma <= 0:
        raise ValueError(
            f"gamma must be at least 0 and sigma positive, not {gamma} and {sigma}."
        )
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"CLBalancedNMS takes axis-aligned boxes (n, 4), not {tuple(boxes.shape)}. For "
            "rotated boxes use nms=dict(type='nms_rotated', ...)."
        )
    if not (boxes.isfinite().all() and scores.isfinite().all()):
        raise ValueError(
            "CLBalancedNMS got NaN or infinite boxes or scores. The model's outputs are broken: "
            "check its checkpoint, or the loss of its training."
        )


# mmcv.ops.batched_nms finds an NMS by its name in mmcv.ops.nms. This is the one place where the
# package adds something to another one.
mmcv_nms.CLBalancedNMS = cl_balanced_nms
