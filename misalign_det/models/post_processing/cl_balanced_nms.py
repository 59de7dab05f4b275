"""CLBalancedNMS: suppression that weighs where the boxes agree (paper C, eq. 6 and 7)."""

from importlib import import_module

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
        boxes: xyxy, ``(n, 4)``.
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
    if len(kept) == 0:
        return torch.cat([boxes[kept], scores[kept, None]], dim=1), kept
    members, ranks = _clusters(boxes, scores, kept, iou_threshold, offset, score_threshold)
    centers = (boxes[:, :2] + boxes[:, 2:])[members] / 2
    middle = _cluster_centers(centers, scores[members], ranks, len(kept))
    distance = (centers - middle[ranks]).norm(dim=1)
    diagonal = (boxes[kept, 2:] - boxes[kept, :2]).norm(dim=1).clamp(min=1e-6)
    selection = scores[members] + gamma * _closeness(distance / diagonal[ranks], sigma, closeness)
    chosen, best = _best_member(selection, ranks, len(kept))
    keep = members[chosen]
    out = {"own": scores[keep], "best": scores[kept], "selection": best}[output_score]
    out, order = out.sort(descending=True, stable=True)
    keep = keep[order]
    if max_num > 0:
        keep, out = keep[:max_num], out[:max_num]
    return torch.cat([boxes[keep], out[:, None]], dim=1), keep


def _clusters(boxes, scores, kept, iou_threshold, offset, score_threshold):
    """Members of all clusters and the rank of the cluster each belongs to; the kept ones first."""
    rest = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    rest[kept] = False
    if score_threshold > 0:
        rest &= scores > score_threshold
    others = rest.nonzero().squeeze(1)
    ranks = suppressor_ranks(boxes, kept, others, iou_threshold, offset)
    found = ranks < len(kept)
    own = torch.arange(len(kept), device=boxes.device)
    return torch.cat([kept, others[found]]), torch.cat([own, ranks[found]])


def _cluster_centers(centers: Tensor, scores: Tensor, ranks: Tensor, num: int) -> Tensor:
    """Eq. 6: centres weighted by the softmax of the scores over each cluster, ``(num, 2)``."""
    # Relative to the kept box, which comes first: centres far out keep their precision.
    origin = centers[:num]
    weights = (scores - scores[:num][ranks]).exp()
    total = weights.new_zeros(num).index_add_(0, ranks, weights)
    shifted = (centers - origin[ranks]) * weights[:, None]
    moved = shifted.new_zeros(num, 2).index_add_(0, ranks, shifted)
    return origin + moved / total[:, None]


def _closeness(distance: Tensor, sigma: float, mode: str) -> Tensor:
    if mode == "gaussian":
        return (-((distance / sigma) ** 2)).exp()
    return 1 - distance if mode == "linear" else distance


def _best_member(selection: Tensor, ranks: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Place of each cluster's largest selection score, and the score; a tie keeps the kept box."""
    best = selection.new_full((num,), -float("inf"))
    best = best.scatter_reduce(0, ranks, selection, "amax")
    place = torch.arange(len(ranks), device=ranks.device)
    place = place.masked_fill(selection < best[ranks], len(ranks))
    return ranks.new_full((num,), len(ranks)).scatter_reduce(0, ranks, place, "amin"), best


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
