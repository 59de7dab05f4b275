"""CVAT for images (one XML file) and LabelMe (one JSON file per image)."""

import json
import os.path as osp
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InputError
from .boxes import (
    OTHER_SHAPES,
    OTHER_SIZE,
    POLYGONS,
    ROTATED,
    UNKNOWN,
    load_globox,
    parse_box,
    rotate_box,
)
from .files import MISSING_IMAGES, UNREADABLE_FILES, FolderFiles
from .records import AnnotatedImage, Counts, first_split, split_of_folder, split_of_words
from .text import read_text, read_xml
from .voc import root_tag

# LabelMe's shapes; rotated boxes have their four corners there and in X-AnyLabeling.
_LABELME_SHAPES = {
    "rectangle": "",
    "polygon": POLYGONS,
    "oriented_rectangle": ROTATED,
    "rotation": ROTATED,
}
_CVAT_SHAPES = ("polyline", "points", "mask", "ellipse", "cuboid", "skeleton")


def is_cvat(files: FolderFiles) -> bool:
    """Whether one of the first XML files is CVAT's."""
    return any(
        root_tag(files.full(path)) == "annotations" for path in files.annotations(".xml")[:20]
    )


def read_cvat(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read CVAT's XML files: boxes, and polygons as the box around them.

    An image's ``subset`` is its split.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and the names of the classes in their order, None if the files list none.

    Raises:
        InputError: a file is cut off, or is of a video and has no images, or lists a label without
            a name.
    """
    read: list[AnnotatedImage] = []
    names: dict[str, None] = {}
    for path in files.annotations(".xml"):
        try:
            root = read_xml(files.full(path), counts, path)
        except (ET.ParseError, OSError) as error:
            if root_tag(files.full(path)) == "annotations":  # of many images, perhaps of a split
                raise InputError(
                    f"{files.full(path)} is not valid XML ({error}). Perhaps it was cut off while "
                    "it was copied; export it again."
                ) from None
            root = None
        if root is None or root.tag != "annotations":
            counts.add(UNREADABLE_FILES, path, split=first_split(split_of_folder(path)))
            continue
        if root.find("track") is not None:
            raise InputError(
                f"{files.full(path)} is in the format 'CVAT for video'. Export the frames as 'CVAT "
                "for images', COCO or YOLO."
            )
        own = [
            (label.findtext("name") or "").strip() for label in root.findall("meta//labels/label")
        ]
        if "" in own:
            raise InputError(
                f"{files.full(path)}: label {own.index('') + 1} of {', '.join(map(repr, own))} has "
                "an empty name. Name it, or remove it if no box has it."
            )
        names |= dict.fromkeys(own)
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
    for shape in node:
        if shape.tag in _CVAT_SHAPES:
            counts.add(OTHER_SHAPES, image.path, split=image.split)
        elif shape.tag in ("box", "polygon"):
            is_box = shape.tag == "box"
            parser = load_globox().BoundingBox.from_cvat if is_box else _from_polygon
            box = parse_box(parser, shape, image.path, counts, image.split)
            if box and names and box.label not in names:
                counts.add(UNKNOWN, f"{image.path}: {box.label!r}", split=image.split)
                continue
            box = box and rotate_box(box, shape.get("rotation"), image.path, counts, image.split)
            if box:
                image.boxes.append(box)
                counts.add(POLYGONS, image.path, number=int(not is_box), split=image.split)
    return image


def _from_polygon(node: ET.Element) -> Any:
    """The box around a polygon, whose points are ``x,y;x,y;...`` in pixels."""
    points = [tuple(map(float, point.split(","))) for point in node.get("points", "").split(";")]
    label, (x, y) = node.get("label"), zip(*points, strict=True)
    if label is None:
        raise ValueError("the polygon has no label")
    corners = (min(x), min(y), max(x), max(y))
    return load_globox().BoundingBox.create(label=label, coords=corners)


def is_labelme(files: FolderFiles) -> bool:
    """Whether a JSON file has shapes."""
    return next(_labelme_files(files, Counts()), None) is not None


def read_labelme(
    files: FolderFiles, counts: Counts
) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read rectangles, and polygons and rotated rectangles as the box around them.

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
        for shape in content["shapes"]:
            kind = ""
            if isinstance(shape, Mapping):
                kind = str(shape.get("shape_type") or "polygon")
            if kind not in _LABELME_SHAPES:
                counts.add(OTHER_SHAPES, path, split=image.split)
                continue
            box = parse_box(
                load_globox().BoundingBox.from_labelme, shape, path, counts, image.split
            )
            if box:
                if shape["label"] is None:
                    box.label = ""
                image.boxes.append(box)
                counts.add(_LABELME_SHAPES[kind], path, number=int(kind != "rectangle"))
        read.append(image)
    files.count_unannotated([image.path for image in read], counts, suffix=".json")
    return read, None


def _labelme_files(files: FolderFiles, counts: Counts) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files.annotations(".json"):
        own = Counts()
        try:
            content = json.loads(read_text(files.full(path), own, path))
        except (OSError, ValueError, RecursionError):
            if files.has_image(path):  # else it may be no annotation
                counts.add(UNREADABLE_FILES, path, split=first_split(split_of_folder(path)))
            continue
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            for kind, number in own.number.items():
                counts.add(kind, path, number)
            yield path, content


def _find(
    files: FolderFiles,
    name: str,
    path: str,
    stated: tuple[str, str],
    counts: Counts,
    split: str | None = None,
) -> AnnotatedImage | None:
    """The image of an annotation, with its real size and its split; `split` comes first."""
    image, elsewhere = None, ""
    if osp.splitext(name)[0] not in ("", osp.splitext(osp.basename(path))[0]):
        image, elsewhere = files.find_image(name, path, split)
    image = image or files.image_of(path, name)
    split = first_split(
        split, split_of_folder(image or name.replace("\\", "/")), split_of_folder(path)
    )
    if image is None:
        counts.add(MISSING_IMAGES, name or path, split=split)
        return None
    size = files.size(image, counts, split)
    if size is None:
        return None
    if stated != tuple(map(str, size)) and all(text.isdigit() for text in stated):
        counts.add(OTHER_SIZE, image)
    return AnnotatedImage(image, size, split, source=path, elsewhere=elsewhere)
