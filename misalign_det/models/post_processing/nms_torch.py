"""CLBalancedNMS on a GPU without Triton: the functions of ``nms_kernels`` in PyTorch.

mmcv's NMS decides which boxes are kept. Its CUDA kernel multiplies where its CPU code divides, so
that an IoU equal to the threshold but for the last bit may count here and not there.
"""

from importlib import import_module

import numpy as np
import torch
from torch import Tensor

mmcv_nms = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

MAX_PAIRS = 4_000_000  # pairs looked at together; bounds the memory, about 200 MB


def greedy_clusters(
    detections: Tensor, order: Tensor, iou_threshold: float, offset: int
) -> tuple[Tensor, Tensor]:
    """As :func:`~.nms_triton.greedy_clusters`, of at least one box.

    Returns:
        ``(cluster, kept)``: of each place, counted from the best, ``(n,)``; and the places of the
        kept boxes, one a cluster, ascending, ``(k,)`` in int64.
    """
    boxes = detections[order, :4].float()
    # mmcv's kernel gives a box turned inside out a negative area, with which it meets all others.
    corner = torch.maximum(boxes[:, 2:], boxes[:, :2] - offset)
    # Scores that fall and are never equal: mmcv sorts once more, and not stably.
    falling = torch.arange(len(boxes), 0, -1, dtype=torch.float32, device=boxes.device)
    proper = torch.cat([boxes[:, :2], corner], dim=1)
    kept = mmcv_nms.nms(proper, falling, iou_threshold, offset)[1]
    return _cluster_of_each(boxes, kept, float(np.float32(iou_threshold)), offset), kept


def _cluster_of_each(boxes, kept, iou_threshold, offset):
    """The first kept box that each box overlaps, ``(n,)``.

    Launches grow with the number of pairs of a box and a kept one, by one round for 4 million.
    """
    area = (boxes[:, 2:] - boxes[:, :2] + offset).prod(dim=1)
    best, best_area = boxes[kept], area[kept]
    found = []
    rows = max(MAX_PAIRS // len(kept), 1)
    for part, part_area in zip(boxes.split(rows), area.split(rows)):
        extent = torch.minimum(part[:, None, 2:], best[:, 2:])
        extent = extent - torch.maximum(part[:, None, :2], best[:, :2]) + offset
        inter = extent.clamp(min=0).prod(dim=2)
        iou = (inter / (best_area + part_area[:, None] - inter)).nan_to_num(0.0)  # of no area
        # The first of several hits. Where mmcv's kernel alone saw one, it is the largest IoU.
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
    """As :func:`~.nms_triton.best_of_clusters` (paper C, eq. 6 and 7)."""
    ranked = detections[order].float()
    own, first = ranked[:, 4], ranked[kept[cluster]]
    shift = ranked[:, :4] - first[:, :4]
    shift = (shift[:, :2] + shift[:, 2:]).double()  # twice the centre's, from the kept box's
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
    # Sorted by cluster, and within one by selection score, of equal ones the first first.
    by_selection = selection.sort(descending=True, stable=True)[1]
    ordered, by_cluster = cluster[by_selection].sort(stable=True)
    begin = torch.searchsorted(ordered, torch.arange(len(kept), device=kept.device))
    place = by_selection[by_cluster[begin]]
    shown = dict(own=own, selection=selection, best=first[:, 4])[output_score]
    return order[place], shown[place]
