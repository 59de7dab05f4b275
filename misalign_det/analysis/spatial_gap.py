"""How far the location that classifies an object best lies from the one that localises it best."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

# COCO's size classes: upper ends of the area in square pixels of the original image.
SIZES = (("small", 32**2), ("medium", 96**2), ("large", float("inf")))


@dataclass
class SpatialGap:
    """The two peaks of one object, on one level or over all of them.

    Attributes:
        gt: index of the object in its image.
        label: its class.
        size: ``'small'``, ``'medium'`` or ``'large'``.
        stride: of the level in pixels; 0 for all levels together.
        pixels: distance of the two locations, in pixels of the network's input.
        strides: the same in strides; over all levels, in strides of the class peak's level.
        same_level: whether both peaks lie on one level.
        iou_at_class_peak: IoU of the box that the best-classifying location predicts.
        best_iou: IoU of the best box of all in-box locations.
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


@torch.no_grad()
def spatial_gaps(
    logits: Tensor,
    bboxes: Tensor,
    points: Tensor,
    strides: Tensor,
    gt_instances: InstanceData,
    scale: float = 1.0,
) -> list[SpatialGap]:
    """Gaps of every object of an image, a level and over all levels, from one forward pass.

    Only locations inside the object's box are looked at. Levels without one are left out.

    Args:
        logits: class logits, ``(P, C)``.
        bboxes: predicted boxes, xyxy in pixels of the input, ``(P, 4)``.
        points: locations in pixels, ``(P, 2)``; those of several anchors are equal.
        strides: their strides in pixels, ``(P,)``.
        gt_instances: ``bboxes`` ``(G, 4)`` in pixels of the input and ``labels`` ``(G,)``.
        scale: pixels of the input a pixel of the original image, for the size class.
    """
    boxes, labels = gt_instances.bboxes.float(), gt_instances.labels
    if len(boxes) == 0:
        return []
    inside = ((points[:, None] > boxes[None, :, :2]) & (points[:, None] < boxes[None, :, 2:])).all(
        -1
    )
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


def size_class(area: float) -> str:
    """COCO's size class of an area in square pixels."""
    return next(name for name, end in SIZES if area < end)


def summarise_gaps(gaps: list[SpatialGap]) -> list[dict]:
    """A row for all levels together, one a level and one a size class.

    Args:
        gaps: of many images.

    Returns:
        Each with ``group``, ``objects``, medians of ``pixels``, ``strides``, mean
        ``iou_at_class_peak`` and ``best_iou``, and ``other_level``: the share whose peaks lie on
        different levels (0 a level).
    """
    whole = [gap for gap in gaps if gap.stride == 0]
    groups = [("all levels", whole)]
    for stride in sorted({gap.stride for gap in gaps} - {0}):
        groups.append((f"stride {stride}", [gap for gap in gaps if gap.stride == stride]))
    groups += [(name, [gap for gap in whole if gap.size == name]) for name, _ in SIZES]
    return [_row(name, [asdict(gap) for gap in group]) for name, group in groups]


def _row(name: str, group: list[dict]) -> dict:
    def statistic(key, function):
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
