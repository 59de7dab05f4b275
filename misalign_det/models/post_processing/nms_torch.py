"""CLBalancedNMS on a GPU without Triton, in PyTorch (CL-balanced NMS, eq. 6 and 7).

The functions of :mod:`.nms_triton`. mmcv's NMS decides which boxes are kept. Its CUDA kernel
multiplies where its CPU code divides, so that the two may differ where an IoU equals the threshold
up to the last bit.
"""

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

mmcv_nms: Any = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

MAX_PAIRS = 4_000_000  # pairs compared at once; bounds the memory at about 200 MB


def greedy_clusters(
    detections: Tensor, order: Tensor, iou_threshold: float, offset: int
) -> tuple[Tensor, Tensor]:
    """Greedy NMS of at least one box.

    Args:
        detections, order, iou_threshold, offset: see :func:`.nms_triton.greedy_clusters`.

    Returns:
        ``(cluster, kept)`` in int64: the cluster of each rank, ``(n,)``, and the ranks of the kept
        boxes, one per cluster, ascending, ``(k,)``.
    """
    boxes = detections[order, :4].float()
    # In mmcv's kernel a box of negative extent has a negative area and overlaps every other box.
    corner = torch.maximum(boxes[:, 2:], boxes[:, :2] - offset)
    # Strictly decreasing scores: mmcv sorts once more, and its sort is not stable.
    falling = torch.arange(len(boxes), 0, -1, dtype=torch.float32, device=boxes.device)
    proper = torch.cat([boxes[:, :2], corner], dim=1)
    kept = mmcv_nms.nms(proper, falling, iou_threshold, offset)[1]
    return _cluster_of_each(boxes, kept, float(np.float32(iou_threshold)), offset), kept


def _cluster_of_each(boxes: Tensor, kept: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Number of the first kept box that each box overlaps, ``(n,)``.

    One round of launches per ``MAX_PAIRS`` pairs of a box and a kept box.
    """
    area = (boxes[:, 2:] - boxes[:, :2] + offset).prod(dim=1)
    best, best_area = boxes[kept], area[kept]
    found = []
    rows = max(MAX_PAIRS // len(kept), 1)
    for part, part_area in zip(boxes.split(rows), area.split(rows)):
        extent = torch.minimum(part[:, None, 2:], best[:, 2:])
        extent = extent - torch.maximum(part[:, None, :2], best[:, :2]) + offset
        inter = extent.clamp(min=0).prod(dim=2)
        iou = (inter / (best_area + part_area[:, None] - inter)).nan_to_num(0.0)  # 0 / 0: no area
        # The first kept box above the threshold. Without one (mmcv's kernel alone found the IoU
        # above it) the one of largest IoU.
        found.append(torch.where(iou > iou_threshold, 2.0, iou).argmax(dim=1))
    cluster = torch.cat(found)
    cluster[kept] = torch.arange(len(kept), device=boxes.device)
    return cluster


def best_of_clusters(
    detections: Tensor,
    order: Tensor,
    cluster: Tensor,
    kept: Tensor,
    gamma: float,
    sigma: float,
    closeness: str,
    output_score: str,
) -> tuple[Tensor, Tensor]:
    """Centre of each cluster (eq. 6) and its box of the largest selection score (eq. 7).

    Args:
        cluster, kept: the result of :func:`greedy_clusters`.
        detections, order, gamma, sigma, closeness, output_score: see
            :func:`.nms_triton.best_of_clusters`.

    Returns:
        ``(index, score)`` of each cluster's best box, ``(k,)`` in int64 and float32.
    """
    ranked = detections[order].float()
    own, first = ranked[:, 4], ranked[kept[cluster]]
    shift = ranked[:, :4] - first[:, :4]
    shift = (shift[:, :2] + shift[:, 2:]).double()  # twice the shift from the kept box's centre
    weight = (own - first[:, 4]).double().exp()[:, None]
    sums = weight.new_zeros(len(kept), 3)
    sums.index_add_(0, cluster, torch.cat([weight, weight * shift], dim=1))
    middle = (sums[:, 1:] / sums[:, :1])[cluster]
    diagonal = (first[:, 2:4] - first[:, :2]).double().norm(dim=1).clamp(min=1e-6)
    distance = ((shift - middle).norm(dim=1) / (2 * diagonal)).float().double()
    if closeness == "gaussian":
        value = (-((distance / float(np.float32(sigma))) ** 2)).exp()
    else:
        value = 1 - distance if closeness == "linear" else distance
    selection = (own.double() + float(np.float32(gamma)) * value).float()
    # Sorted by cluster and within a cluster by selection score, both stably.
    by_selection = selection.sort(descending=True, stable=True)[1]
    ordered, by_cluster = cluster[by_selection].sort(stable=True)
    begin = torch.searchsorted(ordered, torch.arange(len(kept), device=kept.device))
    rank = by_selection[by_cluster[begin]]
    shown = dict(own=own, selection=selection, best=first[:, 4])[output_score]
    return order[rank], shown[rank]
