"""Pascal VOC: one XML file per image, with or without lists of the splits in ImageSets/Main."""

import os.path as osp
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from .boxes import OTHER_SIZE, load_globox, parse_box
from .files import IMAGE_SUFFIXES, FolderFiles, split_of_folder
from .records import SPLITS, AnnotatedImage, Counts, LabelledBox


def root_tag(path: str) -> str:
    """The tag of an XML file's root; empty if it is no XML."""
    try:
        for _, element in ET.iterparse(path, events=("start",)):
            return str(element.tag)
    except (ET.ParseError, OSError):
        pass
    return ""


def is_voc(files: FolderFiles) -> bool:
    """Whether one of the first XML files is in VOC's format."""
    return any(
        root_tag(files.full(path)) == "annotation" for path in files.annotations(".xml")[:20]
    )


def read_voc(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read all XML files.

    VOC counts pixels from 1, and as mmdet's ``XMLDataset`` this subtracts 1 from each coordinate.
    Where any box of the folder begins at 0, the files count from 0 and nothing is subtracted.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and None, since the format has no list of classes.
    """
    lists = _split_lists(files)
    listed = {base for base, _ in lists}
    read: list[AnnotatedImage] = []
    for path in files.annotations(".xml"):
        base = osp.dirname(osp.dirname(path))
        stem = osp.splitext(osp.basename(path))[0]
        split = lists.pop((base, stem), None) if base in listed else split_of_folder(path)
        if base in listed and split is None:
            counts.add("images in no split", path)
            continue
        image = _read_file(files, path, counts)
        if image:
            read.append(replace(image, split="train" if split == "trainval" else split))
    for base, stem in lists:
        counts.add("listed images without an annotation file", f"{base}/{stem}".lstrip("/"))
    starts = [value for image in read for box in image.boxes for value in box.bbox[:2]]
    if min(starts, default=0) >= 1:
        for image in read:
            image.boxes = [_from_zero(box) for box in image.boxes]
    return read, None


def _from_zero(box: LabelledBox) -> LabelledBox:
    x1, y1, x2, y2 = box.bbox
    return replace(box, bbox=(x1 - 1, y1 - 1, x2 - 1, y2 - 1))


def _split_lists(files: FolderFiles) -> dict[tuple[str, str], str]:
    """{(folder that holds Annotations, name of an image): split}."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files.annotations(".txt"):
        folder, name = osp.split(path)
        if folder.endswith("ImageSets/Main") and osp.splitext(name)[0] in (*SPLITS, "trainval"):
            base = osp.dirname(osp.dirname(folder))
            found[base][osp.splitext(name)[0]] = path
    lists = {}
    for base, paths in found.items():
        if "train" in paths:
            paths.pop("trainval", None)
        for split, path in paths.items():
            for name in _names(files.full(path)):
                lists[base, name] = split
    return lists


def _names(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="replace") as opened:
        for line in opened:
            if line.strip():
                name = line.split()[0]
                stem, suffix = osp.splitext(name)
                yield stem if suffix.lower() in IMAGE_SUFFIXES else name


def _read_file(files: FolderFiles, path: str, counts: Counts) -> AnnotatedImage | None:
    try:
        root = ET.parse(files.full(path)).getroot()
    except (ET.ParseError, OSError):
        counts.add("unreadable annotations", path)
        return None
    if root.tag != "annotation":
        counts.add("unreadable annotations", path)
        return None
    name = (root.findtext("filename") or "").strip()
    image = files.image_of(path) or (files.image_named(name, path) if name else None)
    if image is None:
        counts.add("missing images", path)
        return None
    size = files.size(image, counts)
    if size is None:
        return None
    stated = tuple((root.findtext(f"size/{side}") or "").strip() for side in ("width", "height"))
    if all(stated) and stated != ("0", "0") and stated != tuple(map(str, size)):
        counts.add(OTHER_SIZE, path)
    found = AnnotatedImage(image, size)
    for node in root.iter("object"):
        box = parse_box(load_globox().BoundingBox.from_xml, node, path, counts)
        if box:
            box.iscrowd = (node.findtext("difficult") or "").strip() == "1"
            found.boxes.append(box)
    return found
