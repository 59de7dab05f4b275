"""CLBalancedNMS: suppression that weighs where the boxes agree (paper C, eq. 6 and 7)."""

from importlib import import_module
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from ...utils.validation import check_choice
from .nms_cuda import BROKEN, nms_on_device
from .nms_match import suppressors

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
    sigma: float = 0.05,
    closeness: str = "gaussian",
    output_score: str = "own",
) -> tuple[Tensor, Tensor]:
    """Classification-localisation-balanced NMS (paper C).

    Greedy NMS first; of equal scores the first one comes first. A kept box and those it suppresses
    are a cluster; eq. 6 gives its centre, the mean of the boxes' centres weighted by the softmax of
    their scores. The box of the cluster with the largest selection score takes the place of the
    kept one (eq. 7): its own score plus ``gamma`` times its closeness to that centre. Reachable
    from any config of mmdet's as ``CLBalancedNMS``; see the example.

    CUDA tensors stay on their device, with the same results as on the CPU; the host waits for it no
    more often than for ``mmcv.ops.nms``, whose memory it takes too: a bit a pair of boxes.

    Args:
        boxes: xyxy in pixels, ``(n, 4)``.
        scores: in [0, 1], ``(n,)``.
        iou_threshold, offset, score_threshold, max_num: as in ``mmcv.ops.nms``.
        gamma: weight of the closeness; 0 is ``mmcv.ops.nms`` itself, which leaves the order of
            equal scores to torch's sort.
        sigma: with ``'gaussian'``, distance that counts, in diagonals of the greedily kept box.
            Boxes of one cluster overlap, so distances of some hundredths matter. The defaults were
            best on the validation split of BCCD over 15 detectors of mmdet's (configs/README.md).
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
    _check_options(boxes, iou_threshold, gamma, sigma, closeness, output_score)
    if boxes.is_cuda:
        return nms_on_device(
            boxes, scores, iou_threshold, offset, score_threshold, max_num,
            gamma, sigma, closeness, output_score,
        )  # fmt: skip
    corners, own = (part.detach().float().cpu().numpy() for part in (boxes, scores))
    _check_finite(corners, own)
    if gamma == 0 and output_score != "selection":  # the cluster's best is then the kept box
        return mmcv_nms.nms(boxes, scores, iou_threshold, offset, score_threshold, max_num)
    order = _descending(own, score_threshold)
    corners, own = corners.take(order, 0), own.take(order)
    suppressor = suppressors(corners, iou_threshold, offset)
    distance = _relative_distance(corners, own, suppressor)
    selection = _selection_scores(own, distance, gamma, sigma, closeness)
    best = _best_of_each(selection, suppressor)
    if output_score == "selection":
        out = selection[best]
    else:
        out = own[best if output_score == "own" else suppressor[best]]
    by_score = (-out).argsort(kind="stable")[: max_num if max_num > 0 else None]
    best = best.take(by_score)
    keep = torch.from_numpy(order.take(best)).to(boxes.device)
    found = np.empty((len(best), 5), np.float32)
    found[:, :4], found[:, 4] = corners.take(best, 0), out.take(by_score)
    dets = torch.from_numpy(found).to(boxes)
    if boxes.requires_grad:  # as mmcv's nms, which hands the gradient on
        dets = torch.cat([boxes[keep], dets[:, 4:]], dim=1)
    return dets, keep


def _descending(scores: np.ndarray, score_threshold: float) -> np.ndarray:
    """Indices of the scores above the threshold, of equal ones the first first, ``(n,)``."""
    if score_threshold > 0:
        (chosen,) = (scores > score_threshold).nonzero()
        return chosen.take(_descending(scores.take(chosen), 0))
    order = (-scores).argsort()  # faster than the stable sort
    ranked = scores.take(order)
    if np.count_nonzero(ranked[1:] == ranked[:-1]):
        order = (-scores).argsort(kind="stable")
    return order


def _relative_distance(boxes, scores, suppressor) -> np.ndarray:
    """Distance from eq. 6's centre of its cluster in diagonals of the kept box, ``(n,)``.

    The centre is the mean of the boxes' centres weighted by the softmax of their scores. Taken
    relative to the kept box, so that centres far out keep their precision. In float64 and rounded
    at the end: whatever adds up in another order, as a GPU does, then finds the same.

    Args:
        boxes, scores: ``(n, 4)`` and ``(n,)``.
        suppressor: of each box; a kept box's own index, ``(n,)``.
    """
    corners = boxes.view(np.complex64)  # x + iy: lengths and differences of both at once
    kept = corners.take(suppressor, 0)
    shift = corners - kept
    shift = shift[:, 0] + shift[:, 1]  # twice the centre's
    weights = np.exp(scores - scores.take(suppressor), dtype=np.float64)
    total = np.bincount(suppressor, weights).take(suppressor)
    moment = weights * shift
    middle = np.empty(len(shift), np.complex128)
    middle.real = np.bincount(suppressor, moment.real).take(suppressor)
    middle.imag = np.bincount(suppressor, moment.imag).take(suppressor)
    diagonal = np.maximum(np.abs((kept[:, 1] - kept[:, 0]).astype(np.complex128)), 1e-6)
    return (np.abs(shift - middle / total) / (2 * diagonal)).astype(np.float32)


def _best_of_each(values, suppressor) -> np.ndarray:
    """Index of each cluster's largest value, of equal ones the first; in order of the clusters'
    kept boxes, ``(k,)``."""
    peaks = np.full(len(values), -np.inf, values.dtype)
    np.maximum.at(peaks, suppressor, values)
    (places,) = (values == peaks.take(suppressor)).nonzero()
    first = np.empty(len(values), np.int64)
    places = places[::-1]  # where several go to one place, the last one stays there
    first[suppressor.take(places)] = places
    return first[peaks > -np.inf]


def _selection_scores(scores, distance, gamma, sigma, closeness) -> np.ndarray:
    """Eq. 7, ``(n,)`` in float32, from a distance in diagonals of the kept box."""
    gamma, sigma = float(np.float32(gamma)), float(np.float32(sigma))  # as Triton takes them
    value = distance.astype(np.float64)
    if closeness == "gaussian":
        value /= sigma
        value *= -value
        np.exp(value, out=value)
    elif closeness == "linear":
        value = 1 - value
    value *= gamma
    value += scores
    return value.astype(np.float32)


def _check_options(boxes, iou_threshold, gamma, sigma, closeness, output_score) -> None:
    check_choice("closeness", closeness, CLOSENESS_MODES)
    check_choice("output_score", output_score, OUTPUT_SCORES)
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in (0, 1], not {iou_threshold}.")
    if gamma < 0 or sigma <= 0:
        raise ValueError(f"gamma must be at least 0 and sigma positive, not {gamma} and {sigma}.")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"CLBalancedNMS takes axis-aligned boxes (n, 4), not {tuple(boxes.shape)}. For "
            "rotated boxes use nms=dict(type='nms_rotated', ...)."
        )


def _check_finite(boxes: np.ndarray, scores: np.ndarray) -> None:
    # One product tells of broken values; coordinates beyond 1e18 alone make it overflow.
    if not isfinite(np.vdot(boxes, boxes) + np.vdot(scores, scores)) and not (
        np.isfinite(boxes).all() and np.isfinite(scores).all()
    ):
        raise ValueError(BROKEN)


# mmcv.ops.batched_nms finds an NMS by its name in mmcv.ops.nms. This is the one place where the
# package adds something to another one.
mmcv_nms.CLBalancedNMS = cl_balanced_nms
