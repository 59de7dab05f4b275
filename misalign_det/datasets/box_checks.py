"""Count the boxes of a COCO file that mmdet's CocoDataset and its training use."""

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
_NO_AREA = "have no area (a side below 1 pixel, or area 0)"
_MISSED = "count as missed where AP is computed from this file"
_SKIPPED = (
    "are marked ignore and are skipped",
    f"{_NO_AREA} and are skipped",
    "lie outside their image and are skipped",
    "extend beyond their image and are clipped to it",
)
# pycocotools takes all boxes whole, and reads no `ignore`.
_EVALUATED = (
    f"are marked ignore, and {_MISSED}; mark them iscrowd",
    f"{_NO_AREA}, and {_MISSED}; remove them",
    f"lie outside their image, and {_MISSED}; remove them",
    "extend beyond their image, and detections, which do not, fit them less well in AP; clip them",
)


@dataclass
class BoxReport:
    """The result of `check_boxes`.

    Attributes:
        notes: what is counted and left out.
        objects: number of boxes that are used in training or evaluation.
        images: number of images that the dataset keeps.
    """

    notes: list[str] = field(default_factory=list)
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
        images: from `coco_parts`.
        annotations: of the dataset's classes; boxes x, y, w, h in pixels.
        where: config key of the dataset.
        path: of the file, for messages.
        training: False for a dataset in test mode, which keeps all images, and whose file is the
            ground truth of AP.
        filter_cfg: of the dataset.

    Returns:
        Numbers, and notes on unusable, ignored and clipped boxes, on images without objects, images
        listed twice and too small images.

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
    ignored, no_area, outer, clipped = _SKIPPED if training else _EVALUATED
    counted = np.full(len(boxes), True) if training else ~crowd  # no crowd is missed
    for mask, what, kind in (
        (counted & ~kept, ignored, Remark if training else str),
        (counted & flat, no_area, str),
        (counted & outside, outer, str),
        (usable & crowd, "are iscrowd: regions to be ignored, not objects", Remark),
        (counted & beyond, clipped, str),
    ):
        if mask.any():
            ids = shorten(annotations[i]["id"] for i in np.flatnonzero(mask))
            report.notes.append(
                kind(f"{where}: {mask.sum()} of {len(boxes)} boxes {what} (annotation ids {ids}).")
            )
    if not report.objects and not training:
        none = f"none of the {len(boxes)} boxes of {path} counts as an object"
        report.notes.append(
            f"{where}: {none if len(boxes) else f'{path} has no box of the classes'}; AP will be "
            f"{0 if counted.any() else -1}. Annotate its images, or give others."
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
        report: changed in place.
        images: from `coco_parts`.
        annotated: ids of images with annotations of the dataset's classes, usable or not, which is
            what mmdet's `filter_empty_gt` tests.
        objects: ids of images with boxes that count.
        where: config key of the dataset.
        settings: `filter_cfg` of the dataset, empty if it filters nothing.
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
            "boxes, so the objects of the other ids are background there. Merge the entries."
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
    nested = " It is a list inside a list." if _is_nested(first) else ""
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
    """Check that `iscrowd` and `ignore` are numbers: mmdet treats the string "0" as true.

    Raises:
        InputError: some are not.
    """
    for key in _FLAGS:
        wrong = [a for a in annotations if not isinstance(a.get(key), (int, float, type(None)))]
        if wrong:
            raise InputError(
                f"{where}: {path}: {key} of {len(wrong)} of {len(annotations)} annotations is not "
                f"a number but {wrong[0][key]!r} (annotation ids "
                f"{shorten(a['id'] for a in wrong)}). mmdet treats any string as true and "
                "would leave these objects out. Write 0 or 1."
            )
