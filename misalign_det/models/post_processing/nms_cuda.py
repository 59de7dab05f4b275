"""CLBalancedNMS for CUDA tensors: by Triton kernels, or in PyTorch where Triton does not work.

One host-device synchronisation, for the number of kept boxes, as in mmcv's nms. A score threshold
adds another, for the number of boxes above it.
"""

from importlib import import_module
from math import inf, isfinite
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...utils.triton_support import has_triton
from . import nms_torch

mmcv_nms: Any = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

NON_FINITE = (
    "CLBalancedNMS got NaN or infinite boxes or scores. The model's outputs are broken: "
    "check its checkpoint, or the loss of its training."
)


def nms_on_device(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    offset: int,
    score_threshold: float,
    max_num: int,
    gamma: float,
    sigma: float,
    closeness: str,
    output_score: str,
    plain: bool,
) -> tuple[Tensor, Tensor]:
    """:class:`~.cl_balanced_nms.CLBalancedNMS` of CUDA tensors.

    Args:
        boxes: xyxy in pixels, ``(n, 4)``.
        scores: ``(n,)``.
        iou_threshold, offset, score_threshold, max_num, gamma, sigma, closeness, output_score: the
            options of ``CLBalancedNMS``, which has checked them.
        plain: whether the result is that of mmcv's nms.

    Returns:
        ``(dets, keep)``: ``(k, 5)`` boxes with score, descending in score, and their indices
        ``(k,)`` in int64.

    Raises:
        ValueError: NaN or infinite input.
    """
    detections = torch.cat([boxes, scores.detach()[:, None]], dim=1)
    if len(boxes) == 0:
        return detections.to(boxes.dtype), torch.empty_like(scores, dtype=torch.int64)
    largest = _largest_on_host(detections.detach())
    if plain:
        found = mmcv_nms.nms(boxes, scores, iou_threshold, offset, score_threshold, max_num)
        _check_finite(largest)
        return found
    with torch.no_grad():
        order = _descending(scores.float(), score_threshold)
        if len(order) == 0:
            _check_finite(largest)
            return detections[:0].to(boxes.dtype), order
        backend = _backend(boxes)
        clusters, kept = backend.greedy_clusters(detections, order, iou_threshold, offset)
        _check_finite(largest)
        index, score = backend.best_of_clusters(
            detections, order, clusters, kept, gamma, sigma, closeness, output_score
        )
        score, by_score = score.sort(descending=True, stable=True)
        if max_num > 0:
            score, by_score = score[:max_num], by_score[:max_num]
        keep = index[by_score]
    dets = detections[keep].to(boxes.dtype)
    if output_score != "own":
        dets = torch.cat([dets[:, :4], score[:, None].to(boxes.dtype)], dim=1)
    return dets, keep


def _backend(boxes: Tensor) -> ModuleType:
    if has_triton(boxes):
        from . import nms_triton

        return nms_triton
    return nms_torch


def _largest_on_host(values: Tensor) -> Tensor:
    """Largest absolute value, NaN or infinite if one is.

    The copy is asynchronous: read it after a later host-device synchronisation.
    """
    on_host = torch.empty((), dtype=values.dtype, pin_memory=values.is_cuda)
    return on_host.copy_(torch.linalg.vector_norm(values, ord=inf), non_blocking=True)


def _check_finite(largest: Tensor) -> None:
    if not isfinite(largest.item()):
        raise ValueError(NON_FINITE)


def _descending(scores: Tensor, score_threshold: float) -> Tensor:
    """Indices of the scores above the threshold in descending order, stable, ``(n,)``."""
    if score_threshold > 0:
        (chosen,) = (scores > score_threshold).nonzero(as_tuple=True)
        return chosen[scores[chosen].sort(descending=True, stable=True)[1]]
    return scores.sort(descending=True, stable=True)[1]
