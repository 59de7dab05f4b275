"""CLBalancedNMS: suppression that weighs where the boxes agree (paper C, eq. 6 and 7)."""

from importlib import import_module
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from ..choices import check_choice
from .clusters import nms_clusters, score_ranks

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
    dets = torch.cat([boxes, scores[:, None]], dim=1).detach().float()
    array = dets.cpu().numpy()
    _check_finite(array)
    if gamma == 0 and output_score != "selection":  # the cluster's best is then the kept box
        return mmcv_nms.nms(boxes, scores, iou_threshold, offset, score_threshold, max_num)
    if score_threshold > 0:
        chosen = (dets[:, 4] > score_threshold).nonzero().squeeze(1)
        dets, array = dets[chosen], array[chosen.cpu().numpy()]
    members, sizes = nms_clusters(dets, iou_threshold, offset)
    starts = sizes.cumsum() - sizes
    cluster = np.arange(len(sizes)).repeat(sizes)
    clustered = array.take(members, 0)
    own = clustered[:, 4]
    distance = _relative_distance(clustered[:, :4], own, starts, cluster)
    selection = own + gamma * _closeness(distance, sigma, closeness)
    best = _first_largest(selection, starts, cluster)
    if output_score == "selection":
        out = selection[best]
    else:
        out = own[best if output_score == "own" else starts]
    keep = members[best]
    by_score = (-out).argsort()
    ranked = out[by_score]
    if (ranked[1:] == ranked[:-1]).any():  # between equal scores mmcv's order decides
        by_score = np.lexsort((score_ranks(dets[:, 4])[keep], -out))
    if max_num > 0:
        by_score = by_score[:max_num]
    keep = keep[by_score]
    found = array.take(keep, 0)
    found[:, 4] = out[by_score]
    keep, dets = torch.from_numpy(keep).to(boxes.device), torch.from_numpy(found).to(boxes)
    if score_threshold > 0:
        keep = chosen[keep]
    if boxes.requires_grad:  # as mmcv's nms, which hands the gradient on
        dets = torch.cat([boxes[keep], dets[:, 4:]], dim=1)
    return dets, keep


def _relative_distance(boxes, scores, starts, cluster) -> np.ndarray:
    """Distance from eq. 6's centre of its cluster in diagonals of the kept box, ``(n,)``.

    The centre is the mean of the boxes' centres weighted by the softmax of their scores. Taken
    relative to the kept box, so that centres far out keep their precision.

    Args:
        boxes, scores: cluster by cluster, the kept box first, ``(n, 4)`` and ``(n,)``.
        starts: of the clusters, ``(k,)``.
        cluster: of each box, ``(n,)``.
    """
    corners = boxes.view(np.complex64)  # x + iy: sums and lengths of both coordinates at once
    kept = corners.take(starts, 0)
    corners = corners - kept.take(cluster, 0)
    shift = corners[:, 0] + corners[:, 1]  # twice the centre's
    weights = np.exp(scores - scores.take(starts).take(cluster))
    middle = np.add.reduceat(shift * weights, starts) / np.add.reduceat(weights, starts)
    diagonal = np.maximum(np.abs(kept[:, 1] - kept[:, 0]), 1e-6)
    return np.abs(shift - middle.take(cluster)) / (2 * diagonal).take(cluster)


def _first_largest(values, starts, cluster) -> np.ndarray:
    """Place of each cluster's largest value; of equal ones the first, ``(k,)``."""
    peaks = np.maximum.reduceat(values, starts).take(cluster)
    (places,) = (values == peaks).nonzero()
    return places[places.searchsorted(starts)]


def _closeness(distance: np.ndarray, sigma: float, mode: str) -> np.ndarray:
    """Second term of eq. 7, ``(n,)``, from a distance in diagonals of the kept box."""
    if mode == "gaussian":
        return np.exp(-((distance / sigma) ** 2))
    return 1 - distance if mode == "linear" else distance


def _check_options(boxes, iou_threshold, gamma, sigma, closeness, output_score) -> None:
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


def _check_finite(dets: np.ndarray) -> None:
    values = dets.ravel()
    # One product tells of broken values; coordinates beyond 1e19 alone make it overflow.
    if not isfinite(values @ values) and not np.isfinite(values).all():
        raise ValueError(
            "CLBalancedNMS got NaN or infinite boxes or scores. The model's outputs are broken: "
            "check its checkpoint, or the loss of its training."
        )


# mmcv.ops.batched_nms finds an NMS by its name in mmcv.ops.nms. This is the one place where the
# package adds something to another one.
mmcv_nms.CLBalancedNMS = cl_balanced_nms
