"""CVAT for images (one XML file) and LabelMe (one JSON file per image)."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InputError
from .boxes import OTHER_SHAPES, OTHER_SIZE, UNKNOWN, load_globox, parse_box
from .files import FolderFiles, split_of_folder, split_of_words
from .records import AnnotatedImage, Counts
from .voc import root_tag
from .yolo import POLYGONS

_CVAT_SHAPES = ("polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton")


def is_cvat(files: FolderFiles) -> bool:
    """Whether one of the first XML files is CVAT's."""
    return any(
        root_tag(files.full(path)) == "annotations" for path in files.annotations(".xml")[:20]
    )


def read_cvat(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read the boxes of CVAT's XML files; an image's ``subset`` is its split.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and the names of the classes in their order, None if the files list none.

    Raises:
        InputError: a file is of a video and has no images.
    """
    read: list[AnnotatedImage] = []
    names: dict[str, None] = {}
    for path in files.annotations(".xml"):
        try:
            root = ET.parse(files.full(path)).getroot()
        except (ET.ParseError, OSError):
            counts.add("unreadable annotations", path)
            continue
        if root.tag != "annotations":
            counts.add("unreadable annotations", path)
            continue
        if root.find("track") is not None:
            raise InputError(
                f"{files.full(path)} is in the format 'CVAT for video'. Export the frames as 'CVAT "
                "for images', COCO or YOLO."
            )
        own = [label.findtext("name") or "" for label in root.findall("meta//labels/label")]
        names |= dict.fromkeys(name for name in own if name)
        for node in root.iter("image"):
            image = _cvat_image(files, path, node, set(own), counts)
            if image:
                read.append(image)
    return read, list(names) or None


def _cvat_image(
    files: FolderFiles, path: str, node: ET.Element, names: set[str], counts: Counts
) -> AnnotatedImage | None:
    stated = (node.get("width", ""), node.get("height", ""))
    subset = split_of_words([node.get("subset", "")])
    image = _find(files, node.get("name", ""), path, stated, counts, subset)
    if image is None:
        return None
    image.split = subset or split_of_folder(image.path) or split_of_folder(path)
    for shape in node:
        if shape.tag in _CVAT_SHAPES:
            counts.add(OTHER_SHAPES, image.path)
        elif shape.tag == "box":
            box = parse_box(load_globox().BoundingBox.from_cvat, shape, image.path, counts)
            if box and names and box.label not in names:
                counts.add(UNKNOWN, image.path)
            elif box:
                image.boxes.append(box)
    return image


def is_labelme(files: FolderFiles) -> bool:
    """Whether a JSON file with the name of an image has shapes."""
    return next(_labelme_files(files, Counts()), None) is not None


def read_labelme(
    files: FolderFiles, counts: Counts
) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read rectangles, and polygons as the box around them.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and None, since the format has no list of classes.
    """
    read = []
    for path, content in _labelme_files(files, counts):
        stated = (str(content.get("imageWidth")), str(content.get("imageHeight")))
        name = str(content.get("imagePath") or "")
        image = _find(files, name, path, stated, counts)
        if image is None:
            continue
        image.split = split_of_folder(path) or split_of_folder(image.path)
        for shape in content["shapes"]:
            kind = shape.get("shape_type", "polygon") if isinstance(shape, Mapping) else None
            if kind not in ("rectangle", "polygon"):
                counts.add(OTHER_SHAPES, path)
                continue
            box = parse_box(load_globox().BoundingBox.from_labelme, shape, path, counts)
            if box:
                image.boxes.append(box)
                counts.add(POLYGONS, path, number=int(kind == "polygon"))
        read.append(image)
    return read, None


def _labelme_files(files: FolderFiles, counts: Counts) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files.annotations(".json"):
        if files.image_of(path) is None:
            continue
        try:
            with open(files.full(path), encoding="utf-8") as opened:
                content = json.load(opened)
        except (OSError, ValueError, RecursionError):
            counts.add("unreadable annotations", path)
            continue
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            yield path, content


def _find(
    files: FolderFiles,
    name: str,
    path: str,
    stated: tuple[str, str],
    counts: Counts,
    split: str | None = None,
) -> AnnotatedImage | None:
    """The image of an annotation, with its real size."""
    image = (files.image_named(name, path, split) if name else None) or files.image_of(path)
    if image is None:
        counts.add("missing images", name or path)
        return None
    size = files.size(image, counts)
    if size is None:
        return None
    if stated != tuple(map(str, size)) and all(text.isdigit() for text in stated):
        counts.add(OTHER_SIZE, image)
    return AnnotatedImage(image, size)
