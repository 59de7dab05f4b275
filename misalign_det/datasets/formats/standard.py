"""COCO dictionaries as mmdet and pycocotools expect them, from any reader."""

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InputError
from .boxes import SMALL_OVERHANG, UNKNOWN, is_number, is_usable, rotation_of, usable_bbox
from .records import MERGED, AnnotatedImage, Counts

CLIPPED = "boxes that reach over the border of the image (clipped to it)"
IGNORED = "boxes marked ignore (kept as crowds)"
_ROUNDING = 0.5  # pixels over the border that preflight does not report either
_BBox = tuple[float, float, float, float]


def from_images(
    images: Sequence[AnnotatedImage], classes: Sequence[str], counts: Counts
) -> dict[str, Any]:
    """Make a COCO dictionary of images; ids count from 1, and boxes are clipped to their image.

    Args:
        images: with boxes whose labels are classes.
        classes: the names of the categories, in their order.
        counts: counts the boxes that are left out.

    Returns:
        Dictionary with ``images``, ``annotations`` (bbox (x, y, w, h) in pixels) and
        ``categories``.
    """
    content = _empty(classes)
    ids = {name: i for i, name in enumerate(classes, 1)}
    for number, image in enumerate(images, 1):
        width, height = image.size
        content["images"].append(
            {
                **image.attributes,
                "id": number,
                "file_name": image.path,
                "width": width,
                "height": height,
            }
        )
        for box in image.boxes:
            if not is_usable(box.bbox, image.size, image.path, counts, image.split):
                continue
            x1, y1, x2, y2 = _clipped(box.bbox, image.size, image.path, counts)
            content["annotations"].append(
                {
                    **box.attributes,
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": ids[box.label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(box.iscrowd),
                }
            )
    return content


def with_names(content: dict, full: str, path: str, counts: Counts) -> dict:
    """The content with a name for each category id; the same object if nothing is to be changed.

    Args:
        content: COCO dictionary; not changed.
        full: the annotation file, for messages.
        path: the same, for the counts.
        counts: counts names and categories that are there twice.

    Raises:
        InputError: a name is empty, or an id has two.
    """
    names: dict[Any, str] = {}
    categories = []
    for category in content["categories"]:
        key, name = category["id"], category["name"]
        text = "" if name is None else str(name)
        if not text.strip():
            raise InputError(
                f"{full}: category id {key} has an empty name, {name!r}. Name the class, or remove "
                "the category if no box has it."
            )
        if names.get(key, text) != text:
            raise InputError(
                f"{full}: category id {key} is both {names[key]!r} and {text!r}. Give each class "
                "an id of its own, in its boxes too."
            )
        if key in names:
            counts.add("categories listed twice", f"{path}: {text!r}")
            continue
        same = [other for other in names if names[other] == text]
        if same:
            counts.add(MERGED, f"{path}: {text!r} has the ids {same[0]!r} and {key!r}")
        names[key] = text
        categories.append(category if name == text else {**category, "name": text})
    return content if categories == content["categories"] else {**content, "categories": categories}


def listed_once(content: dict, full: str, path: str, counts: Counts) -> dict:
    """The content with one entry per image, which has the boxes of all its entries.

    Args:
        content: COCO dictionary; not changed.
        full: the annotation file, for messages.
        path: the same, for the counts.
        counts: counts images and boxes that are listed twice.

    Raises:
        InputError: an id is that of two files.
    """
    by_id: dict[Any, str] = {}
    by_file: dict[str, Any] = {}
    images, same = [], {}
    for image in content["images"]:
        key, name = image["id"], osp.normpath(str(image["file_name"]))
        if by_id.setdefault(key, name) != name:
            raise InputError(
                f"{full}: image id {key!r} is both {by_id[key]} and {name}. Give each image an id "
                "of its own, in its boxes too."
            )
        if name in by_file:
            counts.add("images listed twice", f"{path}: {name}")
            same[key] = same[by_file[name]] = by_file[name]
        else:
            by_file[name] = key
            images.append(image)
    if not same:
        return content
    boxes, seen = [], set()
    for box in content["annotations"]:
        if box["image_id"] in same:
            box = {**box, "image_id": same[box["image_id"]]}
            object_ = repr((box["image_id"], box["category_id"], box["bbox"]))
            if object_ in seen:  # the entries may be copies, with copies of the boxes
                counts.add("boxes listed twice", f"{path}: image id {box['image_id']}")
                continue
            seen.add(object_)
        boxes.append(box)
    return {**content, "images": images, "annotations": boxes}


def with_same_ids(content: dict, path: str, counts: Counts) -> dict:
    """The content with ids in the boxes of the type that they have in images and categories.

    Args:
        content: COCO dictionary; not changed.
        path: the annotation file, for the counts.
        counts: counts the boxes with ids of another type.
    """
    for part, key in (("images", "image_id"), ("categories", "category_id")):
        ids = {entry["id"] for entry in content[part]}
        by_text = {str(entry): entry for entry in ids}
        other = [
            box for box in content["annotations"]
            if box[key] not in ids and str(box[key]) in by_text
        ]  # fmt: skip
        if not other or len(by_text) < len(ids):
            continue
        kinds = ("string", "number") if isinstance(other[0][key], str) else ("number", "string")
        kind = f"boxes whose {key} is a {kinds[0]} and the id in {part} a {kinds[1]} (kept)"
        counts.add(kind, f"{path}: {other[0][key]!r}", len(other))
        boxes = [
            box if box[key] in ids else {**box, key: by_text.get(str(box[key]), box[key])}
            for box in content["annotations"]
        ]
        content = {**content, "annotations": boxes}
    return content


def used_categories(contents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the categories of all splits, in their order.

    Roboflow adds the name of the project as a category without boxes, the supercategory of the
    others; it is left out.

    Args:
        contents: COCO dictionaries.

    Example:
        >>> project = {'id': 0, 'name': 'cells', 'supercategory': 'none'}
        >>> wbc = {'id': 1, 'name': 'WBC', 'supercategory': 'cells'}
        >>> used_categories([{'categories': [project, wbc], 'annotations': []}])
        ['WBC']
    """
    parents: set[str] = set()
    names: dict[str, None] = {}
    used: set[str] = set()
    for content in contents:
        by_id = {category["id"]: category["name"] for category in content["categories"]}
        names |= dict.fromkeys(by_id.values())
        used |= {by_id.get(box["category_id"], "") for box in content["annotations"]}
        parents |= {
            category["supercategory"] for category in content["categories"]
            if category.get("supercategory") not in (None, "", category["name"])
        }  # fmt: skip
    return [name for name in names if name in used or name not in parents]


def is_standard(content: Mapping[str, Any], classes: Sequence[str]) -> bool:
    """Whether a COCO dictionary can be used as it is.

    Args:
        content: COCO dictionary.
        classes: of the detector, in their order.

    Returns:
        False if the categories come in another order; if boxes are of an image or a category that
        is not listed, are not four numbers, or are rotated; if they lack an ``area`` above 0,
        ``iscrowd`` or an id of their own above 0, without which training leaves them out, or
        pycocotools counts them otherwise or not at all; or if it counts more of them than mmdet:
        no area, outside or over the border, ``ignore``. Any split may become that for evaluation.
    """
    order = [c["name"] for c in content["categories"] if c["name"] in classes]
    boxes = content["annotations"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    return (
        order == list(classes)
        and len({box.get("id") for box in boxes}) == len(boxes)
        and all(
            box["image_id"] in sizes
            and box["category_id"] in categories
            and _is_complete(box)
            and _is_inside(box["bbox"], sizes[box["image_id"]])
            for box in boxes
        )
    )


def _is_complete(box: Mapping[str, Any]) -> bool:
    bbox, key = box["bbox"], box.get("id")
    return (
        isinstance(key, int)
        and key > 0
        and is_number(box.get("area"))
        and is_number(box.get("iscrowd"))
        and isinstance(bbox, list)
        and len(bbox) == 4
        and all(map(is_number, bbox))
        and box["area"] > 0
        and box.get("ignore") in (None, 0)  # pycocotools does not read it
        and not rotation_of(box)
    )


def _is_inside(bbox: Sequence[float], size: tuple[float, float]) -> bool:
    """Whether a box x, y, w, h has an area, and none beyond its image but for rounding."""
    (x, y, w, h), (width, height) = bbox, size
    return (
        min(w, h, x + w, y + h, width - x, height - y) > 0
        and max(-x, -y, x + w - width, y + h - height) <= _ROUNDING
    )


def _clipped(bbox: _BBox, size: tuple[float, float], where: str, counts: Counts) -> _BBox:
    """The part (x1, y1, x2, y2) of a box that is in its image, all that a detector can find."""
    x1, y1, x2, y2 = bbox
    if max(-x1, -y1, x2 - size[0], y2 - size[1]) > SMALL_OVERHANG:
        counts.add(CLIPPED, where)
    return max(x1, 0), max(y1, 0), min(x2, size[0]), min(y2, size[1])


def standardise(
    content: Mapping[str, Any],
    classes: Sequence[str],
    counts: Counts,
    where: str = "",
    split: str | None = None,
) -> dict[str, Any]:
    """Make a COCO dictionary of which :func:`is_standard` holds; other keys are kept.

    Args:
        content: COCO dictionary; not changed.
        classes: names of the categories, in the wanted order.
        counts: counts the boxes that are left out or changed.
        where: the annotation file, for the counts.
        split: that it is of.

    Returns:
        A new dictionary. Images keep their ids; categories and annotations are numbered from 1.
        Boxes are clipped to their image, and those marked ``ignore`` are crowds.
    """
    new = {**content, **_empty(classes)}
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {name: i for i, name in enumerate(classes, 1)}
    images = {image["id"]: image for image in content["images"]}
    new["images"] = list(content["images"])
    for box in content["annotations"]:
        name = names.get(box["category_id"])
        bbox = usable_bbox(box, images, where, counts, split)
        if bbox is None:
            continue
        if name not in ids:
            place = f"{where}: category id {box['category_id']}"
            counts.add(UNKNOWN, place, split=split)
            continue
        image = images[box["image_id"]]
        size, place = (image["width"], image["height"]), str(image["file_name"])
        if not is_usable(bbox, size, f"{where}: {place}", counts, split):  # after its rotation
            continue
        x1, y1, x2, y2 = inside = _clipped(bbox, size, place, counts)
        changed: dict[str, Any] = {}
        area, whole = box.get("area"), (x2 - x1) * (y2 - y1)
        if not is_number(area) or not 0 < area <= whole or rotation_of(box):
            changed["area"] = whole
        if not all(map(is_number, box["bbox"])) or rotation_of(box) or inside != bbox:
            changed["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if rotation_of(box):
            changed["attributes"] = {**box["attributes"], "rotation": 0}
        if box.get("ignore") not in (None, 0, "0"):
            counts.add(IGNORED, place)
            changed |= {"ignore": 0, "iscrowd": 1}
        else:
            iscrowd = box.get("iscrowd") or 0
            changed["iscrowd"] = int(iscrowd == "1") if isinstance(iscrowd, str) else iscrowd
        changed["id"] = len(new["annotations"]) + 1
        new["annotations"].append({**box, **changed, "category_id": ids[name]})
    return new


def _empty(classes: Sequence[str]) -> dict[str, Any]:
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    return {"images": [], "annotations": [], "categories": categories}
