"""Pascal VOC: one XML file per image, with or without lists of the splits in ImageSets/Main."""

import math
import os.path as osp
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from .boxes import OTHER_SIZE, is_usable, load_globox, parse_box, rotate_box
from .files import IMAGE_SUFFIXES, MISSING_IMAGES, UNANNOTATED, UNREADABLE_FILES, FolderFiles
from .records import (
    IN_NO_SPLIT,
    SPLITS,
    AnnotatedImage,
    Counts,
    LabelledBox,
    first_split,
    split_of_folder,
)
from .text import read_text, read_xml


def root_tag(path: str) -> str:
    """The tag of an XML file's root; empty if it is no XML."""
    try:
        try:
            for _, element in ET.iterparse(path, events=("start",)):
                return str(element.tag)
        except (ValueError, LookupError):  # an encoding that expat does not know
            return str(read_xml(path, Counts(), path).tag)
    except (ET.ParseError, OSError):
        pass
    return ""


def is_voc(files: FolderFiles) -> bool:
    """Whether one of the first XML files is in VOC's format."""
    return any(
        root_tag(files.full(path)) == "annotation" for path in files.annotations(".xml")[:20]
    )


def read_voc(
    files: FolderFiles, counts: Counts, whole: bool = False
) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read all XML files.

    VOC counts pixels from 1, and as mmdet's ``XMLDataset`` this subtracts 1 from each coordinate.
    Where any usable box of the folder begins at 0, the files count from 0 and nothing is
    subtracted. Nor is it from the ``robndbox`` of roLabelImg, a rotated box, which is read as the
    box around it.

    Args:
        files: of the data folder.
        counts: counts what is left out.
        whole: read the images that are in none of the lists, too.

    Returns:
        The images, one for each of its splits; and None, since the format has no list of classes.
    """
    paths = files.annotations(".xml")
    lists = _split_lists(files, {(osp.dirname(osp.dirname(path)), _stem(path)) for path in paths})
    listed = {base for base, _ in lists}
    read: list[AnnotatedImage] = []
    rotated: list[list[LabelledBox]] = []  # per image
    for path in paths:
        base, stem = osp.dirname(osp.dirname(path)), _stem(path)
        splits: list[str | None] = [split_of_folder(path)]
        if base in listed:
            splits = [*lists.pop((base, stem), [None] if whole else [])]
            counts.add(IN_NO_SPLIT, path, number=int(not splits))
        for split in splits:
            found = _read_file(files, path, first_split(split), counts)
            if found:
                read.append(found[0])
                rotated.append(found[1])
    for (base, stem), named in lists.items():
        for split in named:
            counts.add(UNANNOTATED, f"{base}/{stem}".lstrip("/"), split=first_split(split))
    if not listed:
        files.count_unannotated([image.path for image in read], counts, suffix=".xml")
    starts = [
        value
        for image in read
        for box in image.boxes
        if is_usable(box.bbox, image.size, "", Counts())  # else a placeholder, such as 0 0 0 0
        for value in box.bbox[:2]
    ]
    if min(starts, default=0) >= 1:
        for image in read:
            image.boxes = [_from_zero(box) for box in image.boxes]
    for image, boxes in zip(read, rotated):
        image.boxes += boxes
    return read, None


def _from_zero(box: LabelledBox) -> LabelledBox:
    x1, y1, x2, y2 = box.bbox
    return replace(box, bbox=(x1 - 1, y1 - 1, x2 - 1, y2 - 1))


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path))[0]


def _split_lists(
    files: FolderFiles, annotated: Collection[tuple[str, str]]
) -> dict[tuple[str, str], list[str]]:
    """Read the lists of the splits.

    Args:
        files: of the data folder.
        annotated: (folder that holds Annotations, name of an image) of all XML files.

    Returns:
        {(folder that holds Annotations, name of an image): its splits}.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files.annotations(".txt"):
        folder, name = osp.split(path)
        if folder.endswith("ImageSets/Main") and osp.splitext(name)[0] in (*SPLITS, "trainval"):
            base = osp.dirname(osp.dirname(folder))
            found[base][osp.splitext(name)[0]] = path
    lists: dict[tuple[str, str], list[str]] = {}
    for base, paths in found.items():
        if "train" in paths:
            paths.pop("trainval", None)
        for split, path in paths.items():
            for line in filter(None, map(str.strip, read_text(files.full(path)).splitlines())):
                # A name may have spaces; and a number may follow it, as in lists of a class.
                names = [_without_suffix(name) for name in (line, line.rsplit(None, 1)[0])]
                name = next(
                    (name for name in names if (base, name) in annotated),
                    _without_suffix(line.split()[0]),
                )
                of_image = lists.setdefault((base, name), [])
                if split not in of_image:
                    of_image.append(split)
    return lists


def _without_suffix(name: str) -> str:
    stem, suffix = osp.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _read_file(
    files: FolderFiles, path: str, split: str | None, counts: Counts
) -> tuple[AnnotatedImage, list[LabelledBox]] | None:
    """The image of a file with its upright boxes, and its rotated boxes."""
    try:
        root = read_xml(files.full(path), counts, path)
    except (ET.ParseError, OSError):
        root = None
    if root is None or root.tag != "annotation":
        counts.add(UNREADABLE_FILES, path, split=split)
        return None
    name = (root.findtext("filename") or "").strip().replace("\\", "/")
    image, elsewhere = files.image_of(path, name), ""
    if image is None and _stem(name) not in ("", _stem(path)):
        image, elsewhere = files.find_image(name, path)
    if image is None:
        counts.add(MISSING_IMAGES, path, split=split)
        return None
    size = files.size(image, counts, split)
    if size is None:
        return None
    stated = tuple((root.findtext(f"size/{side}") or "").strip() for side in ("width", "height"))
    if all(stated) and stated != ("0", "0") and stated != tuple(map(str, size)):
        counts.add(OTHER_SIZE, path)
    found = AnnotatedImage(image, size, split, source=path, elsewhere=elsewhere)
    rotated: list[LabelledBox] = []
    for node in root.iter("object"):
        turned = node.find("bndbox") is None and node.find("robndbox") is not None
        parser = _from_robndbox if turned else load_globox().BoundingBox.from_xml
        box = parse_box(parser, node, path, counts, split)
        if box and turned:
            angle = _degrees(node.findtext("robndbox/angle"))
            box = rotate_box(box, angle, path, counts, split)
        if box:
            box.iscrowd = (node.findtext("difficult") or "").strip() == "1"
            (rotated if turned else found.boxes).append(box)
    return found, rotated


def _from_robndbox(node: ET.Element) -> Any:
    """A box of roLabelImg before its rotation: centre, width and height in pixels."""
    globox, label = load_globox(), node.findtext("name")
    if label is None:
        raise ValueError("the object has no name")
    coords = [float(node.findtext(f"robndbox/{key}") or "") for key in ("cx", "cy", "w", "h")]
    box_format = globox.BoxFormat.XYWH
    return globox.BoundingBox.create(label=label, coords=coords, box_format=box_format)


def _degrees(radians: str | None) -> float:
    """The angle of roLabelImg, in radians, as degrees; NaN if it is no number."""
    try:
        return math.degrees(float(radians or ""))
    except ValueError:
        return math.nan
