"""Which boxes of a COCO file mmdet's CocoDataset and its training use."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..utils.text import shorten
from .annotation_checks import Remark

_FLAGS = ("iscrowd", "ignore")


@dataclass
class BoxReport:
    """What `check_boxes` found.

    Attributes:
        notes: what is counted and left out.
        objects: boxes that a detector is trained on, or evaluated by.
        images: images that the dataset keeps.
    """

    notes: list = field(default_factory=list)
    objects: int = 0
    images: int = 0


def check_boxes(
    images: list[dict],
    annotations: list[dict],
    where: str,
    path: str,
    training: bool,
    filter_cfg: Mapping | None = None,
) -> BoxReport:
    """Count what mmdet's CocoDataset and Resize leave out, ignore or clip.

    Args:
        annotations: those of the dataset's classes; boxes x, y, w, h in pixels.
        training: False for a dataset in test mode, which keeps all images.
        filter_cfg: the dataset's.

    Returns:
        With notes on unusable, ignored and clipped boxes, images without objects, images
            listed twice and too small ones.

    Raises:
        InputError: a box is not four finite numbers, or a flag is a string.
    """
    boxes = _boxes(annotations, where, path)
    _check_flags(annotations, where, path)
    area = np.array([a["area"] for a in annotations], float)
    kept = np.array([not a.get("ignore", False) for a in annotations], bool)
    crowd = np.array([bool(a.get("iscrowd", False)) for a in annotations], bool)
    size = {i["id"]: (i["width"], i["height"]) for i in images}
    extent = np.array([size[a["image_id"]] for a in annotations], float).reshape(-1, 2)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    seen = np.clip(np.minimum(high, extent) - np.maximum(low, 0), 0, None).prod(1)
    # The conditions of mmdet's CocoDataset.parse_data_info.
    flat = (boxes[:, 2] < 1) | (boxes[:, 3] < 1) | (area <= 0)
    outside = ~flat & (seen == 0)
    usable = kept & ~flat & ~outside
    beyond = usable & ((low < -0.5) | (high > extent + 0.5)).any(1)
    report = BoxReport(objects=int((usable & ~crowd).sum()))
    for mask, what, kind in (
        (~kept, "are marked ignore and are skipped", Remark),
        (flat, "have no area (a side below 1 pixel, or area 0) and are skipped", str),
        (outside, "lie outside their image and are skipped", str),
        (usable & crowd, "are iscrowd: regions to be ignored, no objects", Remark),
        (beyond, "reach over the border of their image and are clipped to it", str),
    ):
        if mask.any():
            ids = shorten(annotations[i]["id"] for i in np.flatnonzero(mask))
            report.notes.append(
                kind(f"{where}: {mask.sum()} of {len(boxes)} boxes {what} (annotation ids {ids}).")
            )
    if len(boxes) and not report.objects and not training:
        report.notes.append(
            f"{where}: none of the {len(boxes)} boxes of {path} counts as an object; AP will be -1."
        )
    objects = {annotations[i]["image_id"] for i in np.flatnonzero(usable & ~crowd)}
    _count_images(
        report,
        images,
        {a["image_id"] for a in annotations},
        objects,
        where,
        (filter_cfg or {}) if training else {},
    )
    return report


def _count_images(
    report: BoxReport,
    images: list[dict],
    annotated: set,
    objects: set,
    where: str,
    settings: Mapping,
) -> None:
    """Add notes on images without objects, too small ones and those listed twice.

    Args:
        annotated: ids of images that have annotations of the dataset's classes, usable or
            not: mmdet's `filter_empty_gt` looks at no more.
        objects: ids of images with boxes that count.
        settings: the dataset's `filter_cfg`, empty where it filters nothing.
    """
    limit = settings.get("min_size", 0)
    strict = settings.get("filter_empty_gt", False)
    left_out = [i for i in images if strict and i["id"] not in annotated]
    ground = [
        i for i in images if i["id"] not in objects and not (strict and i["id"] not in annotated)
    ]
    small = [i for i in images if min(i["width"], i["height"]) < limit]
    for group, fate, kind in (
        (left_out, "left out (filter_empty_gt=True)", str),
        (ground, "kept as background", Remark),
    ):
        if group:
            names = shorten((i["file_name"] for i in group), 3)
            report.notes.append(
                kind(
                    f"{where}: {len(group)} of {len(images)} images have no "
                    f"objects and are {fate}: {names}."
                )
            )
    if small:
        report.notes.append(
            f"{where}: {len(small)} of {len(images)} images have a side below "
            f"min_size={limit} and are left out."
        )
    gone = {i["id"] for i in [*left_out, *small]}
    report.images = len(images) - len(gone)
    if not report.images or not objects - gone:
        report.objects = 0
    twice = {n: k for n, k in Counter(i["file_name"] for i in images).items() if k > 1}
    if twice:
        report.notes.append(
            f"{where}: {len(twice)} pictures are listed more than once, under "
            f"{sum(twice.values())} image ids: {shorten(twice, 3)}. Each id has only its own "
            "boxes: the objects of the others are background there. Merge the entries."
        )


def _boxes(annotations: list[dict], where: str, path: str) -> np.ndarray:
    """Boxes as an array of shape (N, 4).

    Raises:
        InputError: some are not four finite numbers.
    """
    given = [a["bbox"] for a in annotations]
    try:
        boxes = np.array(given)
    except ValueError:  # lists of different lengths
        boxes = np.array(None)
    if not given:
        return np.zeros((0, 4))
    if boxes.shape == (len(given), 4) and boxes.dtype.kind in "iuf" and np.isfinite(boxes).all():
        return boxes
    wrong = [a for a in annotations if not _four_numbers(a["bbox"])]
    if not wrong:  # integers beyond 64 bits, truth values
        return np.array(given, float)
    first = wrong[0]["bbox"]
    nested = " It is nested once too often." if _is_nested(first) else ""
    raise InputError(
        f"{where}: {path}: {len(wrong)} annotations have a bbox that is not four finite numbers "
        f"[x, y, width, height]; the first has id {wrong[0]['id']}, bbox {first}.{nested} Correct "
        "or remove them."
    )


def _four_numbers(box: Any) -> bool:
    return (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, (int, float)) and math.isfinite(v) for v in box)
    )


def _is_nested(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 1 and _four_numbers(box[0])


def _check_flags(annotations: list[dict], where: str, path: str) -> None:
    """`iscrowd` and `ignore` must be numbers: mmdet takes the string "0" for true.

    Raises:
        InputError: some are not.
    """
    for key in _FLAGS:
        wrong = [a for a in annotations if not isinstance(a.get(key), (int, float, type(None)))]
        if wrong:
            raise InputError(
                f"{where}: {path}: {key} of {len(wrong)} of {len(annotations)} annotations is no "
                f"number but {wrong[0][key]!r} (annotation ids {shorten(a['id'] for a in wrong)}). "
                "mmdet takes any string for true and would leave these objects out. Write 0 or 1."
            )
