"""Spatial gap: the distance between the best locations of the two tasks for one object.

The class peak of a GT is the location inside it with the highest probability of its class, the IoU
peak the one whose predicted box has the largest IoU with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

# COCO's size classes: upper ends of the area in square pixels of the original image.
SIZES = (("small", 32**2), ("medium", 96**2), ("large", float("inf")))


@dataclass
class SpatialGap:
    """The two peaks of one GT, on one level or over all levels.

    Attributes:
        gt: index of the GT in its image.
        label: class index.
        size: COCO's size class, ``'small'``, ``'medium'`` or ``'large'``.
        stride: of the level in pixels; 0 for all levels together.
        pixels: distance of the two peaks in pixels of the network input.
        strides: the same in strides; over all levels, in strides of the class peak's level.
        same_level: whether both peaks lie on one level.
        iou_at_class_peak: IoU of the box predicted at the class peak.
        best_iou: IoU of the box predicted at the IoU peak.
    """

    gt: int
    label: int
    size: str
    stride: int
    pixels: float
    strides: float
    same_level: bool
    iou_at_class_peak: float
    best_iou: float


class SpatialGaps:
    """Accumulates the gaps of every GT of a split; see :func:`spatial_gaps`."""

    def __init__(self) -> None:
        self._images: list[list[SpatialGap]] = []

    def update(
        self,
        logits: Tensor,
        bboxes: Tensor,
        points: Tensor,
        strides: Tensor,
        gt_instances: InstanceData,
        scale: float = 1.0,
    ) -> None:
        """Add the GTs of one image; the arguments are those of :func:`spatial_gaps`."""
        self._images.append(spatial_gaps(logits, bboxes, points, strides, gt_instances, scale))

    def compute(self) -> list[dict[str, Any]]:
        """The rows of :func:`summarise_gaps` over all images seen."""
        return summarise_gaps([gap for gaps in self._images for gap in gaps])

    def per_image(self) -> list[np.ndarray]:
        """The gap over all levels, in strides, of the GTs of each image seen, ``(g,)`` each."""
        return [np.array([g.strides for g in gaps if g.stride == 0]) for gaps in self._images]


@torch.no_grad()
def spatial_gaps(
    logits: Tensor,
    bboxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_instances: InstanceData,
    scale: float = 1.0,
) -> list[SpatialGap]:
    """The gaps of every GT of an image, per level and over all levels.

    A level without a location inside the GT is left out.

    Args:
        logits: class logits, ``(P, C)``.
        bboxes: predicted boxes, xyxy in pixels of the network input, ``(P, 4)``.
        points: locations in the same pixels, ``(P, 2)``; those of several anchors are equal.
        strides: their strides in pixels, ``(P,)``.
        gt_instances: ``bboxes`` ``(G, 4)``, xyxy in the same pixels, and ``labels`` ``(G,)``.
        scale: pixels of the network input per pixel of the original image, for the size class.

    Returns:
        Over all levels first, then per level.
    """
    boxes, labels = gt_instances.bboxes.float(), gt_instances.labels
    if len(boxes) == 0:
        return []
    inside = points_inside(points, boxes)
    iou = bbox_overlaps(bboxes.float(), boxes)
    probability = logits.float().sigmoid()[:, labels]
    areas = ((boxes[:, 2:] - boxes[:, :2]).prod(1) / scale**2).tolist()
    gaps = []
    for stride in [0, *sorted(set(strides.tolist()))]:
        mask = inside if stride == 0 else inside & (strides == stride)[:, None]
        by_class = probability.masked_fill(~mask, -1).argmax(0)
        by_iou = iou.masked_fill(~mask, -1).argmax(0)
        pixels = (points[by_class] - points[by_iou]).norm(dim=1)
        unit = strides[by_class]
        gathered = zip(
            mask.any(0).tolist(),
            pixels.tolist(),
            (pixels / unit).tolist(),
            (unit == strides[by_iou]).tolist(),
            iou.gather(0, by_class[None])[0].tolist(),
            iou.gather(0, by_iou[None])[0].tolist(),
        )
        gaps += [
            SpatialGap(gt, int(labels[gt]), size_class(areas[gt]), int(stride), *values)
            for gt, (present, *values) in enumerate(gathered)
            if present
        ]
    return gaps


def points_inside(points: Tensor, bboxes: Tensor) -> Tensor:
    """Which boxes contain which points; a point on the border lies outside.

    Args:
        points: ``(P, 2)``.
        bboxes: xyxy in the same pixels, ``(G, 4)``.

    Returns:
        ``(P, G)`` bool.
    """
    first, last = bboxes[None, :, :2], bboxes[None, :, 2:]
    return ((points[:, None] > first) & (points[:, None] < last)).all(-1)


def size_class(area: float) -> str:
    """COCO's size class of an area in square pixels; ``'large'`` if it is not a finite number."""
    return next((name for name, end in SIZES if area < end), SIZES[-1][0])


def summarise_gaps(gaps: Sequence[SpatialGap]) -> list[dict[str, Any]]:
    """Medians and means over all levels, per level and per size class.

    Args:
        gaps: of all images.

    Returns:
        A row per group: ``group``, its name; ``objects``, their number; medians ``pixels`` and
        ``strides``; means ``iou_at_class_peak`` and ``best_iou``; ``other_level``, the share of
        objects whose peaks lie on different levels (0 per level). NaN in an empty group.
    """
    whole = [gap for gap in gaps if gap.stride == 0]
    groups = [("all levels", whole)]
    for stride in sorted({gap.stride for gap in gaps} - {0}):
        groups.append((f"stride {stride}", [gap for gap in gaps if gap.stride == stride]))
    groups += [(name, [gap for gap in whole if gap.size == name]) for name, _ in SIZES]
    return [_row(name, [asdict(gap) for gap in group]) for name, group in groups]


def _row(name: str, group: list[dict[str, Any]]) -> dict[str, Any]:
    def statistic(key: str, function: Callable) -> float:
        return float(function([gap[key] for gap in group])) if group else float("nan")

    return dict(
        group=name,
        objects=len(group),
        pixels=statistic("pixels", np.median),
        strides=statistic("strides", np.median),
        iou_at_class_peak=statistic("iou_at_class_peak", np.mean),
        best_iou=statistic("best_iou", np.mean),
        other_level=1 - statistic("same_level", np.mean),
    )
