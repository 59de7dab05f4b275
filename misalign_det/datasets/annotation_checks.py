"""Check annotations in COCO format against what mmdet reads from them; nothing is changed.

`where` is the config key of the dataset, for messages. Functions that return a list of strings
return notes on what is counted or left out. `InputError` is raised for what would stop training, or
would make its result wrong without a message.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..utils.text import shorten

SKIP_EXTRA = "--cfg-options preflight.extra_categories=skip"

_ID: tuple[Any, str] = ((int, float, str), "a number or a string")
_NUMBER: tuple[Any, str] = ((int, float), "a number")
_TYPES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("id", "image_id", "category_id"), _ID),
    **dict.fromkeys(("width", "height", "area"), _NUMBER),
    **dict.fromkeys(("file_name", "name"), (str, "a string")),
}
_PLURAL = {"image": "images", "category": "categories"}


class Remark(str):
    """A note on something that is counted, but not left out; it is logged as information."""


def is_remote(backend_args: Mapping | None) -> bool:
    """Whether files are read through a storage backend other than the local disk.

    Args:
        backend_args: of a dataset, a loading step or an evaluator.
    """
    return (backend_args or {}).get("backend", "local") not in ("local", "disk")


def coco_parts(
    content: Any, path: str, where: str, annotated: bool = True
) -> tuple[list[dict], list[dict], list[dict]]:
    """The images, annotations and categories of a COCO file, with the keys that mmdet needs.

    Args:
        content: from `read_json`.
        path: of the file, for messages.
        where: config key of the dataset.
        annotated: False allows a file without annotations (test images, unlabelled images).

    Returns:
        Images, annotations, categories.

    Raises:
        InputError: a list or a key is missing, an id occurs twice, or a value has the wrong type.
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
                    f"key {key!r} (first: index {bad[0]} of the list). Add it."
                )
            kinds, called = _TYPES.get(key, (object, ""))
            wrong = [e for e in entries if not isinstance(e[key], kinds)]
            if wrong:
                raise InputError(
                    f"{where}: {path}: {key} of {len(wrong)} of {len(entries)} {part} "
                    f"is not {called}: {shorten((repr(e[key]) for e in wrong), 3)} (ids "
                    f"{shorten(e['id'] for e in wrong)})."
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
    return parts[0], parts[1], parts[2]


def check_references(
    images: list[dict], annotations: list[dict], categories: list[dict], path: str, where: str
) -> None:
    """Check that every annotation refers to an image and a category of the file.

    Args:
        images, annotations, categories: from `coco_parts`.
        path: of the file, for messages.
        where: config key of the dataset.

    Raises:
        InputError: some do not; the message gives their number and ids.
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
                f"{where}: {path}: {len(lost)} of {len(annotations)} annotations refer to "
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
    """Check that the file's categories are the dataset's classes, in the same order.

    mmdet finds classes by name, in the order of the file. A missing class or another order would
    exchange the labels of the following classes without a message.

    Args:
        annotations, categories: from `coco_parts`.
        classes: of the dataset's metainfo.
        path: of the file, for messages.
        where: config key of the dataset.
        extra: for boxes of a category that is not a class: ``'error'`` or ``'skip'``.

    Returns:
        Notes: the number of boxes left out with ``'skip'``; categories without boxes that are not
        classes, such as the supercategory that Roboflow adds.

    Raises:
        InputError: they differ; the message lists both and says what to change.
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
    notes: list[str] = []
    used = {a["category_id"] for a in annotations}
    bare = [c["name"] for c in categories if c["name"] in unknown and c["id"] not in used]
    if bare:
        notes.append(
            Remark(
                f"{where}: the category {shorten(map(repr, bare))} has no boxes and is not "
                "a class of the dataset; it has no effect."
            )
        )
    unknown = [n for n in unknown if n not in bare]
    if unknown:
        ids = {c["id"] for c in categories if c["name"] in unknown}
        count = sum(a["category_id"] in ids for a in annotations)
        what = f"category {shorten(map(repr, unknown))} ({count} boxes)"
        if extra != "skip":
            raise InputError(
                f"{where}: {path} has the {what}, which is not a class of the dataset. {both} Set "
                f"{change}; or leave the boxes out with {SKIP_EXTRA}."
            )
        notes.append(f"{where}: the {what} is not a class of the dataset and is left out.")
    order = [n for n in names if n in classes]
    if order != list(classes):
        raise InputError(
            f"{where}: {path} lists the classes in another order than the dataset, so their labels "
            f"would be exchanged. {both} Set {where}.metainfo.classes={_tuple(order)}."
        )
    return notes


def _tuple(names: Sequence[str]) -> str:
    """Names as a tuple to paste, at most ten of them."""
    return "(" + "".join(f"{n!r}, " for n in names[:10]).strip() + ("...)" if names[10:] else ")")
