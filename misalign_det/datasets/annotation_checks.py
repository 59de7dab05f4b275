"""Checks of annotation files against what mmdet makes of them. Pure: they read, count and raise.

`where` is the config key of the dataset that a message is about. Functions that return a list
return notes: what is counted and left out. `InputError` is for what would stop training, or spoil
it unseen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..utils.text import shorten

SKIP_EXTRA = "--cfg-options preflight.extra_categories=skip"


_ID = ((int, float, str), "a number or a string")
_NUMBER = ((int, float), "a number")
_TYPES = {
    **dict.fromkeys(("id", "image_id", "category_id"), _ID),
    **dict.fromkeys(("width", "height", "area"), _NUMBER),
    **dict.fromkeys(("file_name", "name"), (str, "a string")),
}
_PLURAL = {"image": "images", "category": "categories"}


class Remark(str):
    """A note about something that is counted, but by which nothing is lost."""


def is_remote(backend_args: Mapping | None) -> bool:
    """Whether files are read through a storage backend other than the disk.

    Args:
        backend_args: of a dataset, a loading step or an evaluator.
    """
    return bool(backend_args) and backend_args.get("backend", "local") not in ("local", "disk")


def coco_parts(
    content: Any, path: str, where: str, annotated: bool = True
) -> tuple[list[dict], list[dict], list[dict]]:
    """The images, annotations and categories of a COCO file, checked for what mmdet needs of them.

    Args:
        content: what `read_json` returned.
        annotated: False allows a file without annotations (test images, unlabelled ones).

    Returns:
        Images, annotations, categories.

    Raises:
        InputError: a part or a key is missing, an id occurs twice, or a value is of the wrong type.
    """
    needed = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("id", "image_id", "category_id", "bbox", "area"),
        "categories": ("id", "name"),
    }
    form = f"COCO format is an object with the lists {', '.join(needed)}."
    if not isinstance(content, dict):
        raise InputError(f"{where}: {path} holds a JSON {type(content).__name__}. {form}")
    parts = []
    for part, keys in needed.items():
        optional = part == "annotations" and not annotated
        entries = content.get(part, [] if optional else None)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(
                f"{where}: {path} has no list of objects {part!r}; it has "
                f"{shorten(content, 8) or 'nothing'}. {form}"
            )
        for key in keys:
            bad = [i for i, entry in enumerate(entries) if key not in entry]
            if bad:
                raise InputError(
                    f"{where}: {path}: {len(bad)} of {len(entries)} {part} lack the "
                    f"key {key!r} (first: number {bad[0]} of the list). Add it."
                )
            kinds, called = _TYPES.get(key, (object, ""))
            bad = [e for e in entries if not isinstance(e[key], kinds)]
            if bad:
                raise InputError(
                    f"{where}: {path}: {key} of {len(bad)} of {len(entries)} {part} "
                    f"is not {called}: {shorten((repr(e[key]) for e in bad), 3)} (ids "
                    f"{shorten(e['id'] for e in bad)})."
                )
        twice = [i for i, n in Counter(e["id"] for e in entries).items() if n > 1]
        if twice:
            raise InputError(
                f"{where}: {path}: these ids of {part} occur more than once: "
                f"{shorten(twice)}. Give each entry an id of its own."
            )
        parts.append(entries)
    if not parts[0]:
        raise InputError(f"{where}: {path} lists no images.")
    return tuple(parts)


def check_references(
    images: list[dict], annotations: list[dict], categories: list[dict], path: str, where: str
) -> None:
    """Every annotation must point to an image and a category of the file.

    Raises:
        InputError: some do not; the message counts and names them.
    """
    for part, entries in (("image", images), ("category", categories)):
        key = f"{part}_id"
        known = {e["id"] for e in entries}
        lost = [a for a in annotations if a[key] not in known]
        if lost and {str(a[key]) for a in lost} <= {str(i) for i in known}:
            kind = type(lost[0][key]).__name__
            other = type(entries[0]["id"]).__name__
            raise InputError(
                f"{where}: {path}: {key} of {len(lost)} of {len(annotations)} annotations is "
                f"written as {kind}, the ids of {_PLURAL[part]} as {other} ({lost[0][key]!r}; "
                f"annotation ids {shorten(a['id'] for a in lost)}). Write both alike."
            )
        if lost:
            raise InputError(
                f"{where}: {path}: {len(lost)} of {len(annotations)} annotations point to "
                f"{'an' if part == 'image' else 'a'} {part} that the file does not list "
                f"({key} {shorten({str(a[key]): 0 for a in lost})}; "
                f"annotation ids {shorten(a['id'] for a in lost)}). Add the {part} to the file or "
                "remove the annotations."
            )


def check_categories(
    annotations: list[dict],
    categories: list[dict],
    classes: Sequence[str],
    path: str,
    where: str,
    extra: str = "error",
) -> list[str]:
    """The file's categories must be the dataset's classes, in the same order.

    mmdet looks classes up by name in the file's order, so a missing one or another order would give
    the following classes each other's labels without a word.

    Args:
        classes: the dataset's metainfo.
        extra: 'error' or 'skip', what to do about a category that is no class.

    Returns:
        How many boxes are left out with 'skip'; categories that are no class and have
            no boxes, such as the supercategory that Roboflow adds.

    Raises:
        InputError: names both sides and what to change.
    """
    names = [c["name"] for c in categories]
    lacking = [c for c in classes if c not in names]
    unknown = [n for n in names if n not in classes]
    both = (
        f"The file has: {shorten(names, 10)}. The dataset's metainfo has: {shorten(classes, 10)}."
    )
    change = f"{where}.metainfo.classes={_tuple(names)} and the head's num_classes to {len(names)}"
    if lacking:
        raise InputError(
            f"{where}: {path} has no category {shorten(map(repr, lacking))}. {both} If the file is "
            f"right, set {change}; otherwise correct its names (case and spaces count)."
        )
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{where}: {path} has several categories called {shorten(twice)}. mmdet would count "
            "each as a class. Merge them, or remove the one without boxes."
        )
    notes = []
    used = {a["category_id"] for a in annotations}
    bare = [c["name"] for c in categories if c["name"] in unknown and c["id"] not in used]
    if bare:
        notes.append(
            Remark(
                f"{where}: the category {shorten(map(repr, bare))} has no boxes and is no "
                "class of the dataset; it changes nothing."
            )
        )
    unknown = [n for n in unknown if n not in bare]
    if unknown:
        ids = {c["id"] for c in categories if c["name"] in unknown}
        count = sum(a["category_id"] in ids for a in annotations)
        what = f"category {shorten(map(repr, unknown))} ({count} boxes)"
        if extra != "skip":
            raise InputError(
                f"{where}: {path} has the {what}, which is no class of the dataset. {both} Set "
                f"{change}; or leave the boxes out with {SKIP_EXTRA}."
            )
        notes.append(f"{where}: the {what} is no class of the dataset and is left out.")
    order = [n for n in names if n in classes]
    if order != list(classes):
        raise InputError(
            f"{where}: {path} lists the classes in another order than the dataset, so their labels "
            f"would be exchanged. {both} Set {where}.metainfo.classes={_tuple(order)}."
        )
    return notes


def _tuple(names: Sequence[str]) -> str:
    """Names as a tuple to paste; many are cut short."""
    return "(" + "".join(f"{n!r}, " for n in names[:10]).strip() + ("...)" if names[10:] else ")")
