"""Check annotations in Pascal VOC format against what mmdet's XMLDataset reads from them."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence

from ..errors import InputError
from ..utils.text import shorten
from .annotation_checks import SKIP_EXTRA, Remark


def check_voc(
    ids: Sequence[str],
    xml_path: Callable[[str], str],
    classes: Sequence[str],
    where: str,
    extra: str = "error",
) -> tuple[list[str], int]:
    """Check that every VOC file exists and is valid, and names only classes of the dataset.

    Args:
        ids: names in the split's list.
        xml_path: gives the path of the XML file of a name.
        classes: of the dataset's metainfo.
        where: config key of the dataset.
        extra: for boxes of a name that is not a class: ``'error'`` or ``'skip'``.

    Returns:
        Notes on boxes without area and images without objects; and the number of objects of the
        classes, without those marked difficult, which mmdet ignores.

    Raises:
        InputError: files are missing or malformed, or a name is not a class.
    """
    absent: list[str] = []
    broken: list[str] = []
    names: Counter[str] = Counter()
    flat = empty = useful = 0
    for image in ids:
        path = xml_path(image)
        try:
            objects = ET.parse(path).getroot().findall("object")
            for item in objects:
                name = _text(item, "name")
                names[name] += 1
                x1, y1, x2, y2 = (
                    float(_text(item, f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")
                )
                flat += not (x2 > x1 and y2 > y1)
                difficult = int(item.findtext("difficult") or 0)
                useful += name in classes and not difficult
            empty += not objects
        except FileNotFoundError:
            absent.append(path)
        except (ET.ParseError, AttributeError, TypeError, ValueError) as error:
            broken.append(f"{path} ({error})")
    for paths, what in ((absent, "missing"), (broken, "malformed")):
        if paths:
            raise InputError(
                f"{where}: {len(paths)} of {len(ids)} annotation files are {what}: "
                f"{shorten(paths, 3)}. Correct them, data_root, or the split's list."
            )
    unknown = [n for n in names if n not in classes]
    if unknown and extra != "skip":
        raise InputError(
            f"{where}: the annotations name {shorten(map(repr, unknown))}, which is not a class of "
            f"the dataset. The dataset's metainfo has: {shorten(classes, 20)}. Add it there and to "
            f"the head's num_classes, or leave the boxes out with {SKIP_EXTRA}."
        )
    notes = []
    if flat:
        notes.append(f"{where}: {flat} of {sum(names.values())} boxes have no area.")
    if empty:
        notes.append(Remark(f"{where}: {empty} of {len(ids)} images have no objects."))
    return notes, useful


def _text(item: ET.Element, path: str) -> str:
    """Text of an element below `item`; AttributeError if there is none."""
    return item.find(path).text  # type: ignore[union-attr, return-value]  # the caller catches it
