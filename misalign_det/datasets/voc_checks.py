"""Checks of annotations in Pascal VOC's format, against what mmdet's XMLDataset makes of them."""

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
    """Every VOC file must be there and parse, and name only classes of the dataset.

    Args:
        ids: the names in the split's list.
        xml_path: from such a name to the path of its XML file.
        classes, extra: as for `check_categories`.

    Returns:
        Notes on boxes without area and images without objects; the number of
            objects of the classes that are not marked difficult, which mmdet ignores.

    Raises:
        InputError: files are missing or malformed, or a name is no class.
    """
    absent, broken, names, flat, empty, useful = [], [], Counter(), 0, 0, 0
    for name in ids:
        path = xml_path(name)
        try:
            objects = ET.parse(path).getroot().findall("object")
            for item in objects:
                names[item.find("name").text] += 1
                x1, y1, x2, y2 = (
                    float(item.find(f"bndbox/{k}").text) for k in ("xmin", "ymin", "xmax", "ymax")
                )
                flat += not (x2 > x1 and y2 > y1)
                difficult = int(item.findtext("difficult") or 0)
                useful += item.find("name").text in classes and not difficult
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
            f"{where}: the annotations name {shorten(map(repr, unknown))}, which is no class of "
            f"the dataset. The dataset's metainfo has: {shorten(classes, 20)}. Add it there and to "
            f"the head's num_classes, or leave the boxes out with {SKIP_EXTRA}."
        )
    notes = []
    if flat:
        notes.append(f"{where}: {flat} of {sum(names.values())} boxes have no area.")
    if empty:
        notes.append(Remark(f"{where}: {empty} of {len(ids)} images have no objects."))
    return notes, useful
