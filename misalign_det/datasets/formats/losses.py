"""Refuse a folder of whose annotations most cannot be used, and warn where many cannot."""

import os.path as osp
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .boxes import (
    NO_AREA,
    NOT_CONFIDENCE,
    NOT_RELATIVE,
    OTHER_SHAPES,
    OTHER_SIZE,
    OUTSIDE,
    UNKNOWN,
    UNLISTED,
    UNREADABLE,
)
from .files import (
    MISSING_IMAGES,
    UNANNOTATED,
    UNREADABLE_FILES,
    UNREADABLE_IMAGES,
    FolderFiles,
)
from .records import (
    COPIES,
    MERGED,
    NO_SPLIT,
    NOT_IN_SPLIT,
    NOT_READ,
    OTHER_ORDER,
    SHARED_TEXT,
    SPLITS,
    UNNAMED,
    CocoSplit,
    Counts,
)

# The likely cause of each loss.
_BOXES = {
    NOT_RELATIVE: "YOLO's coordinates are parts of the image's width and height: divide pixels by "
    "them.",
    UNKNOWN: "Is a class missing in the list, or do the class numbers begin at 1 instead of 0?",
    UNLISTED: "Are these the annotations of these images? Their image ids differ.",
    OUTSIDE: "Are these the images that were annotated, in the same size?",
    NO_AREA: "Are corners exchanged, or are width and height where right and bottom should be?",
    NOT_CONFIDENCE: "Remove all that follows the class and the four coordinates.",
    UNREADABLE: "A box has a class and four numbers with decimal points.",
}
_IMAGES = {
    MISSING_IMAGES: "Are all images there, under the names that the annotations have?",
    UNREADABLE_IMAGES: "Copy them again from where they come from.",
    UNREADABLE_FILES: "Export the annotations again.",
    UNANNOTATED: "Are all annotation files there?",
    UNNAMED: "If they have no objects, add rows with their names and nothing else.",
}
_SHAPES = {OTHER_SHAPES: "Export their boxes, if they are objects."}
# Nothing is left out, but boxes may be wrong.
_CHANGES = {
    MERGED: "If they are different classes, give each a name of its own.",
    OTHER_SIZE: "Boxes are misplaced if they were drawn in that size.",
    COPIES: "They are left out. If they have no objects, name their folder in data.yaml.",
    OTHER_ORDER: "Check that each list is of the labels in its folder.",
    SHARED_TEXT: "Each has its boxes. If they are one picture, or a mask, keep one of them.",
    NOT_IN_SPLIT: "They are left out. Add them to the files of the splits, or remove that file.",
    NO_SPLIT: "They are no split. Correct their paths, if there is one.",
    NOT_READ: "Others have all of their images. Remove them, or name them after their split.",
}
# Of formats with a file per image: its suffix, and what it has if it has an object.
_PER_IMAGE = {
    "voc": (".xml", rb"<object>"),
    "yolo": (".txt", rb"(?m)^\s*\d+(\s+\d*\.?\d+){4}"),
    "labelme": (".json", rb'"points"'),
}
_WARNED, _REFUSED = 0.1, 0.5  # shares of the boxes of a split


def check_losses(root: str, kept: Mapping[str, tuple[int, int]], counts: Counts) -> list[str]:
    """Check how much of each split, and of all of them together, is left out.

    Args:
        root: the data folder, for messages.
        kept: {split: numbers of images and of boxes that can be used}; all images may be ``''``.
        counts: what is left out.

    Returns:
        Warnings, where more than a tenth of the boxes or images of a split is left out, or any
        image of val or test; where classes of the same name were merged; and where images have
        another size than stated.

    Raises:
        InputError: more than half of the boxes of a split, or all of its images, are left out.
    """
    warnings: list[str] = []
    faults: list[str] = []
    for split in (*SPLITS, ""):
        place = f"{root}: {split}: " if split else f"{root}: "
        if split or split in kept:
            _check(place, split, kept.get(split, (0, 0)), counts.of_split(split), warnings, faults)
    if not warnings and not faults:  # what is left out may belong to no known split
        images, boxes = (sum(numbers) for numbers in zip((0, 0), *kept.values()))
        _check(f"{root}: ", "", (images, boxes), counts, warnings, faults)
    if faults:
        raise InputError("\n".join(faults))
    for kind, advice in _CHANGES.items():
        if kind in counts.number:
            warnings.append(f"{root}: {counts.only([kind])}. {advice}")
    return warnings


def other_formats(
    files: FolderFiles,
    read: str,
    splits: Mapping[str, CocoSplit],
    readers: Mapping[str, tuple[str, Callable[[FolderFiles], bool], Callable[..., Any]]],
) -> list[str]:
    """Warn where images without boxes have some in a format that is not read.

    Exporters leave the same boxes in several formats, which is no reason for a warning.

    Args:
        files: of the data folder.
        read: the format that is read.
        splits: what was read.
        readers: {format: title, whether a folder is in it, function that reads it}.
    """
    annotated = set()
    for split in splits.values():
        with_boxes = {box["image_id"] for box in split.content["annotations"]}
        head = osp.relpath(split.images, files.root)
        annotated |= {
            osp.normpath(osp.join(head, image["file_name"]))
            for image in split.content["images"]
            if image["id"] in with_boxes
        }
    others = [image for image in files.images if image not in annotated]
    warnings = []
    for name, (title, matches, reader) in readers.items() if others else ():
        # Files beside COCO's are many, or as large as those.
        if name == read or (read in ("coco", "roboflow") and name not in ("voc", "yolo")):
            continue
        try:
            if not matches(files):
                continue
            if name in _PER_IMAGE:
                more = [image for image in others if _has_objects(files, image, *_PER_IMAGE[name])]
            else:
                with_boxes = {image.path for image in reader(files, Counts())[0] if image.boxes}
                more = [image for image in others if image in with_boxes]
        except (InputError, OSError):  # it could not be read if it were asked for
            continue
        if more:
            warnings.append(
                f"{files.root}: {len(more)} images without boxes, such as {more[0]}, have some in "
                f"{title} format, which is not read. Convert all annotations to one format."
            )
    return warnings


def _has_objects(files: FolderFiles, image: str, suffix: str, mark: bytes) -> bool:
    paths = files.annotations_of(image, suffix)
    return any(re.search(mark, Path(files.full(path)).read_bytes()) for path in paths)


def likely_cause(counts: Counts) -> str:
    """Why most of what is left out is left out, in a sentence; empty if nothing is."""
    causes = _IMAGES | _BOXES | _SHAPES
    number = counts.only(causes).number
    return causes[max(number, key=lambda kind: number[kind])] if number else ""


def _check(
    place: str,
    split: str,
    kept: tuple[int, int],
    counts: Counts,
    warnings: list[str],
    faults: list[str],
) -> None:
    """Add to the warnings and faults what is left out of one split.

    Args:
        place: the beginning of messages.
        split: its name; empty for all images.
        kept: numbers of images and boxes.
        counts: of the split.
        warnings, faults: extended in place.
    """
    images, boxes = kept
    for noun, causes, number in (
        ("images", _IMAGES, images),
        ("boxes", _BOXES, boxes),
        ("shapes", _SHAPES, boxes),
    ):
        lost = counts.only(causes)
        if not lost.number:
            continue
        left_out = sum(lost.number.values())
        total = left_out + number
        cause = likely_cause(lost)
        if (noun == "boxes" and left_out > _REFUSED * total) or (noun == "images" and not number):
            faults.append(
                f"{place}{left_out} of {total} {noun} cannot be used: {lost}. {cause} Correct them"
                f"{', or take the split out of the folder' if split else ''}."
            )
        elif left_out > _WARNED * total or (noun == "images" and split in ("val", "test")):
            rest = " Results are those of the rest." if split in ("val", "test") else ""
            warnings.append(
                f"{place}{left_out} of {total} {noun} are left out: {lost}. {cause}{rest}"
            )
