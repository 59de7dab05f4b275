"""Single boxes, parsed by globox; a box that cannot be used is counted."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeGuard

from ...errors import InputError
from .records import Counts, LabelledBox

NO_AREA = "boxes without area"
OUTSIDE = "boxes outside the image"
UNREADABLE = "unreadable boxes"
UNKNOWN = "boxes of unknown classes"
UNLISTED = "boxes of images that are not listed"
NOT_RELATIVE = "boxes with coordinates above 1, which should be parts of the image"
NOT_CONFIDENCE = "boxes followed by a number that is no confidence from 0 to 1 (a track id?)"
POLYGONS = "polygons read as the box around them"
ROTATED = "rotated boxes read as the box around them"
OTHER_SHAPES = "shapes that are not boxes"
OTHER_SIZE = "images of another size than their annotation says"
SMALL_OVERHANG = 1.0  # pixels; what rounding does is not reported


def load_globox() -> ModuleType:
    """The library that parses the formats.

    Raises:
        InputError: it is not installed.
    """
    try:
        import globox
    except ModuleNotFoundError as error:
        if error.name != "globox":
            raise
        raise InputError(
            "reading this format needs globox: pip install \"misalign_det[data]\" (or globox alone)"
        ) from None
    return globox


def parse_box(
    parser: Callable[..., Any],
    node: Any,
    where: str,
    counts: Counts,
    split: str | None = None,
    **kwargs: Any,
) -> LabelledBox | None:
    """Parse one box.

    Args:
        parser: a constructor of globox's ``BoundingBox``.
        node: what it parses: a line, an XML element or a dict.
        where: file of the box.
        counts: counts the box if it cannot be used.
        split: of the image.
        **kwargs: passed to the parser.

    Returns:
        None if the box cannot be used.
    """
    errors = load_globox().errors
    try:
        box = parser(node, **kwargs)
    except AssertionError:  # globox asserts that the right border is not left of the left one
        counts.add(NO_AREA, where, split=split)
        return None
    except (errors.ParsingError, ValueError, TypeError, KeyError):
        counts.add(UNREADABLE, where, split=split)
        return None
    x1, y1, x2, y2 = (float(value) for value in box.ltrb)
    return LabelledBox(str(box.label).strip(), (x1, y1, x2, y2))


def rotate_box(
    box: LabelledBox, degrees: Any, where: str, counts: Counts, split: str | None = None
) -> LabelledBox | None:
    """The upright box around a box that is rotated about its centre.

    Args:
        box: before the rotation.
        degrees: the angle as the file has it, a number or text; None or empty: 0. Whether it counts
            clockwise makes no difference to the box around.
        where: file of the box.
        counts: counts the box if it is rotated, or if its angle is no number.
        split: of the image.

    Returns:
        None if the angle is no number.
    """
    try:
        angle = float(degrees or 0)
    except (TypeError, ValueError):
        angle = math.nan
    if not math.isfinite(angle):
        counts.add(UNREADABLE, where, split=split)
        return None
    if angle % 180 == 0:
        return box
    counts.add(ROTATED, where, split=split)
    return replace(box, bbox=around_rotated(box.bbox, angle))


def around_rotated(
    bbox: tuple[float, float, float, float], degrees: float
) -> tuple[float, float, float, float]:
    """The upright box around a box that is rotated about its centre.

    Args:
        bbox: (x1, y1, x2, y2) before the rotation.
        degrees: angle.

    Example:
        >>> [round(value) for value in around_rotated((0, 4, 10, 6), 90)]
        [4, 0, 6, 10]
    """
    x1, y1, x2, y2 = bbox
    cosine, sine = (abs(f(math.radians(degrees))) for f in (math.cos, math.sin))
    half_width = ((x2 - x1) * cosine + (y2 - y1) * sine) / 2
    half_height = ((x2 - x1) * sine + (y2 - y1) * cosine) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def is_usable(
    bbox: tuple[float, float, float, float],
    size: tuple[float, float],
    where: str,
    counts: Counts,
    split: str | None = None,
) -> bool:
    """Whether a box is finite and has an area, and a part of it is in its image.

    Args:
        bbox: (x1, y1, x2, y2) in pixels.
        size: (width, height) of the image.
        where: file of the box.
        counts: counts the box if not.
        split: of the image.
    """
    x1, y1, x2, y2 = bbox
    if not all(map(math.isfinite, bbox)):
        counts.add(UNREADABLE, where, split=split)
    elif not (x2 > x1 and y2 > y1):
        counts.add(NO_AREA, where, split=split)
    elif not (x2 > 0 and y2 > 0 and x1 < size[0] and y1 < size[1]):
        counts.add(OUTSIDE, where, split=split)
    else:
        return True
    return False


def usable_bbox(
    box: Mapping[str, Any],
    images: Mapping[Any, Mapping[str, Any]],
    where: str,
    counts: Counts,
    split: str | None,
) -> tuple[float, float, float, float] | None:
    """A box as (x1, y1, x2, y2) in pixels, upright; None, and counted, if it cannot be used.

    Args:
        box: annotation of a COCO dictionary.
        images: {id: image} of the dictionary.
        where: the annotation file, for the counts.
        counts: counts the box if it cannot be used, or is rotated.
        split: that it is of.
    """
    image = images.get(box["image_id"])
    if image is None:
        counts.add(UNLISTED, f"{where}: image id {box['image_id']}", split=split)
        return None
    place = f"{where}: {image['file_name']}"
    try:
        x, y, w, h = (float(value) for value in box["bbox"])
    except (TypeError, ValueError):
        counts.add(UNREADABLE, place, split=split)
        return None
    bbox = (x, y, x + w, y + h)
    if not is_usable(bbox, (image["width"], image["height"]), place, counts, split):
        return None
    if angle := rotation_of(box):
        counts.add(ROTATED, place, split=split)
        bbox = around_rotated(bbox, angle)
    return bbox


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def rotation_of(box: Mapping[str, Any]) -> float:
    """The angle in degrees by which CVAT's COCO files rotate a box about its centre."""
    attributes = box.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, Mapping) else 0
    # The box of a mask is around it already.
    return angle % 180 if is_number(angle) and not box.get("segmentation") else 0
