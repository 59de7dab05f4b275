"""Single boxes, parsed by globox; a box that cannot be used is counted."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ...errors import InputError
from .records import Counts, LabelledBox

NO_AREA = "boxes without area"
OUTSIDE = "boxes outside the image"
UNREADABLE = "unreadable boxes"
UNKNOWN = "boxes of unknown classes"
OTHER_SHAPES = "shapes that are not boxes"
OTHER_SIZE = "images of another size than their annotation says"


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
    parser: Callable[..., Any], node: Any, where: str, counts: Counts, **kwargs: Any
) -> LabelledBox | None:
    """Parse one box.

    Args:
        parser: a constructor of globox's ``BoundingBox``.
        node: what it parses: a line, an XML element or a dict.
        where: file of the box.
        counts: counts the box if it cannot be used.
        **kwargs: passed to the parser.

    Returns:
        None if the box cannot be used.
    """
    errors = load_globox().errors
    try:
        box = parser(node, **kwargs)
    except AssertionError:  # globox asserts that the right border is not left of the left one
        counts.add(NO_AREA, where)
        return None
    except (errors.ParsingError, ValueError, TypeError, KeyError):
        counts.add(UNREADABLE, where)
        return None
    x1, y1, x2, y2 = (float(value) for value in box.ltrb)
    return LabelledBox(str(box.label).strip(), (x1, y1, x2, y2))


def is_usable(
    bbox: tuple[float, float, float, float], size: tuple[float, float], where: str, counts: Counts
) -> bool:
    """Whether a box has an area, and a part of it is in its image.

    Args:
        bbox: (x1, y1, x2, y2) in pixels.
        size: (width, height) of the image.
        where: file of the box.
        counts: counts the box if not.
    """
    x1, y1, x2, y2 = bbox
    if not (x2 > x1 and y2 > y1):
        counts.add(NO_AREA, where)
    elif not (x2 > 0 and y2 > 0 and x1 < size[0] and y1 < size[1]):
        counts.add(OUTSIDE, where)
    else:
        return True
    return False
