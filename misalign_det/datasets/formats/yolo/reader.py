"""Read YOLO's labels."""

import os.path as osp
from collections.abc import Sequence
from itertools import islice

from ....errors import InputError
from ..boxes import (
    NOT_CONFIDENCE,
    NOT_RELATIVE,
    POLYGONS,
    UNKNOWN,
    UNREADABLE,
    load_globox,
    parse_box,
)
from ..files import MISSING_IMAGES, UNREADABLE_FILES, FolderFiles
from ..records import (
    COPIES,
    IN_NO_SPLIT,
    SHARED_TEXT,
    AnnotatedImage,
    Counts,
    LabelledBox,
    first_split,
    split_of_folder,
)
from ..text import read_text
from .class_names import ClassLists
from .split_lists import split_folders, split_lists, splits_of

_TESTED = 200  # text files that are read to see whether they are labels
_HIGHEST = 1.5  # of a coordinate; some labels reach a little over the border
_ROUNDING = 1e-3


def is_yolo(files: FolderFiles) -> bool:
    """Whether a text file looks like an image's labels."""
    texts = (path for path in map(files.text_of, files.images) if path)
    return any(_has_labels(files.full(path)) for path in islice(texts, _TESTED))


def read_yolo(
    files: FolderFiles, counts: Counts, whole: bool = False
) -> tuple[list[AnnotatedImage], list[str]]:
    """Read the images and their text files; an image without one has no objects.

    Args:
        files: of the data folder.
        counts: counts what is left out.
        whole: read the labelled images that a YAML file puts into no split, too.

    Returns:
        The images, one for each of its splits, and the names of the classes in their order.

    Raises:
        InputError: there are no names of classes, or two that contradict each other, or no labels,
            or the YAML file cannot be read or names a folder that is not there.
    """
    classes = ClassLists(files)
    if not classes.all:
        raise classes.fault or InputError(
            f"{files.root}: there are YOLO labels, but no names of classes. Add classes.txt with "
            "one name a line, or data.yaml with names."
        )
    first = classes.all[0]
    folders = split_folders(files, first.path, first.content, counts)
    lists = {} if folders else split_lists(files, counts)
    of_image: dict[str, Sequence[str | None]] = {}
    for image in files.images:
        if folders:
            of_image[image] = splits_of(image, folders)
            if not of_image[image] and whole and _is_labelled(files, image):
                of_image[image] = [None]
        else:
            of_image[image] = lists.get(image) or [first_split(split_of_folder(image))]
    others = [image for image, splits in of_image.items() if not splits]
    counts.add(IN_NO_SPLIT, "".join(others[:1]), len(others))
    chosen = [image for image, splits in of_image.items() if splits]
    texts, copies = files.pair_texts(chosen, _has_labels, folders or lists)
    counts.add(COPIES, "".join(copies[:1]), len(copies))
    read, name_lists, owners = [], [], set()
    for image, text in texts.items():
        if text:
            counts.add(SHARED_TEXT, image, number=int(text in owners))
            owners.add(text)
        for split in of_image[image]:
            size = files.size(image, counts, split)
            if size is None:
                continue
            found = AnnotatedImage(image, size, split)
            if text:
                own = classes.of(text, image)
                name_lists.append(own)
                poses = bool(own.content.get("kpt_shape"))
                found.boxes = _read_labels(files, text, found, own.names, counts, poses)
            read.append(found)
    _count_missing(files, {*owners, *filter(None, map(files.text_of, files.images))}, counts)
    return read, classes.names_of(name_lists or [first], counts)


def _is_labelled(files: FolderFiles, image: str) -> bool:
    """Whether an image has a text file; an empty one says that it has no objects."""
    path = files.text_of(image)
    full = files.full(path) if path else ""
    return osp.isfile(full) and (osp.getsize(full) == 0 or _has_labels(full))


def _count_missing(files: FolderFiles, used: set[str], counts: Counts) -> None:
    """Count the labels beside others, or of a split that has no others, which no image has.

    Raises:
        InputError: no image has any.
    """
    if not used:
        raise InputError(f"{files.root}: no text file has the name of an image.")
    folders = {osp.dirname(text) for text in used}
    used_splits = {split_of_folder(text) for text in used}
    for text in files.annotations(".txt"):
        split = split_of_folder(text)
        lost = split not in used_splits  # a split whose images are all missing
        if text in used or not (lost or osp.dirname(text) in folders):
            continue
        if _has_labels(files.full(text)):
            counts.add(MISSING_IMAGES, text, split=first_split(split))


def _read_labels(
    files: FolderFiles,
    path: str,
    image: AnnotatedImage,
    names: list[str],
    counts: Counts,
    poses: bool,
) -> list[LabelledBox]:
    """Read a text file; coordinates are parts of the image's width and height.

    Args:
        files: of the data folder.
        path: of the text file.
        image: that it is of.
        names: of the classes.
        counts: counts what is left out.
        poses: whether the points of a pose follow each box, which would look like a polygon.
    """
    parse, split = load_globox().BoundingBox, image.split
    parsers = {5: parse.from_yolo_darknet, 6: parse.from_yolo_v5}  # 6: with a confidence
    boxes = []
    try:
        lines = read_text(files.full(path)).splitlines()
    except OSError:
        counts.add(UNREADABLE_FILES, path, split=split)
        return []
    for line in lines:
        words = line.split()[: 5 if poses else None]
        if not words:
            continue
        if _is_tracked(words):
            counts.add(NOT_CONFIDENCE, f"{path}: {line.strip()}", split=split)
            continue
        line = " ".join(words)
        box = parse_box(parsers.get(len(words), parse.from_yolo_seg), line, path, counts, split,
                        image_size=image.size)  # fmt: skip
        if box is None:
            continue
        try:
            index = int(float(box.label))
        except (ValueError, OverflowError):
            counts.add(UNREADABLE, path, split=split)
            continue
        highest = max(words[1:5] if len(words) < 7 else words[1:], key=float)
        if not 0 <= index < len(names):
            counts.add(UNKNOWN, f"{path}: class {index}, names 0 to {len(names) - 1}", split=split)
        elif float(highest) > _HIGHEST:
            counts.add(NOT_RELATIVE, f"{path}: {highest}", split=split)
        else:
            counts.add(POLYGONS, path, number=int(len(words) > 6))
            box.label = names[index]
            boxes.append(box)
    return boxes


def _has_labels(path: str) -> bool:
    """Whether the first line of a text file is a class and four or more coordinates."""
    try:
        lines = read_text(path).splitlines()
        words = next((line.split() for line in lines if line.strip()), [])
        return len(words) >= 5 and all(float(word) >= 0 for word in words)
    except (OSError, ValueError):
        return False


def _is_tracked(words: Sequence[str]) -> bool:
    """Whether a line is a box with a number, such as a track's, after it or its confidence.

    With both it has as many values as a triangle; the box is in the image then, and the last value
    a whole number.
    """
    try:
        _, *numbers = map(float, words)
    except ValueError:
        return False
    if len(numbers) == 5:
        return not 0 <= numbers[4] <= 1
    if len(numbers) != 6:
        return False
    x, y, w, h, confidence, number = numbers
    in_image = max(abs(x - 0.5) + w / 2, abs(y - 0.5) + h / 2) <= 0.5 + _ROUNDING
    return in_image and min(w, h) > 0 and 0 <= confidence <= 1 and number == int(number)
