"""Refuse a folder of whose annotations most cannot be used, and warn where many cannot."""

from collections.abc import Mapping

from ...errors import InputError
from .boxes import (
    NO_AREA,
    NOT_RELATIVE,
    OTHER_SHAPES,
    OTHER_SIZE,
    OUTSIDE,
    UNKNOWN,
    UNLISTED,
    UNREADABLE,
)
from .files import MISSING_IMAGES, UNANNOTATED, UNREADABLE_FILES, UNREADABLE_IMAGES
from .records import COPIES, MERGED, NO_SPLIT, NOT_IN_SPLIT, NOT_READ, SPLITS, Counts

# The likely cause of each loss.
_BOXES = {
    NOT_RELATIVE: "YOLO's coordinates are parts of the image's width and height: divide pixels by "
    "them.",
    UNKNOWN: "Is a class missing in the list, or do the class numbers begin at 1 instead of 0?",
    UNLISTED: "Are these the annotations of these images? Their image ids differ.",
    OUTSIDE: "Are these the images that were annotated, in the same size?",
    NO_AREA: "Are corners exchanged, or are width and height where right and bottom should be?",
    UNREADABLE: "A box has a class and four numbers with decimal points.",
}
_IMAGES = {
    MISSING_IMAGES: "Are all images there, under the names that the annotations have?",
    UNREADABLE_IMAGES: "Copy them again from where they come from.",
    UNREADABLE_FILES: "Export the annotations again.",
    UNANNOTATED: "Are all annotation files there?",
}
_SHAPES = {OTHER_SHAPES: "Export their boxes, if they are objects."}
# Nothing is left out, but boxes may be wrong.
_CHANGES = {
    MERGED: "If they are different classes, give each a name of its own.",
    OTHER_SIZE: "Boxes are misplaced if they were drawn in that size.",
    COPIES: "They are left out. If they have no objects, name their folder in data.yaml.",
    NOT_IN_SPLIT: "They are left out. Add them to the files of the splits, or remove that file.",
    NO_SPLIT: "They are no split. Correct their paths, if there is one.",
    NOT_READ: "Others have all of their images. Remove them, or name them after their split.",
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
