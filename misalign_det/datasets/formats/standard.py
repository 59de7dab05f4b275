"""COCO dictionaries as mmdet and pycocotools expect them, from any reader."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from .boxes import ROTATED, UNKNOWN, UNREADABLE, around_rotated, is_usable
from .losses import UNLISTED
from .records import AnnotatedImage, Counts

SMALL_OVERHANG = 1.0  # pixels; what rounding does is not reported


def from_images(
    images: Sequence[AnnotatedImage], classes: Sequence[str], counts: Counts
) -> dict[str, Any]:
    """Make a COCO dictionary of images; ids count from 1.

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
            _count_overhang(box.bbox, image.size, image.path, counts)
            x1, y1, x2, y2 = box.bbox
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


def is_standard(content: Mapping[str, Any], classes: Sequence[str]) -> bool:
    """Whether a COCO dictionary can be used as it is.

    Args:
        content: COCO dictionary.
        classes: of the detector, in their order.

    Returns:
        False if the categories come in another order; if boxes are of an image or a category that
        is not listed, are not four numbers, or are rotated; or if they lack ``area``, ``iscrowd``
        or an id of their own above 0, without which pycocotools counts them otherwise or not at
        all.
    """
    order = [c["name"] for c in content["categories"] if c["name"] in classes]
    boxes = content["annotations"]
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    return (
        order == list(classes)
        and len({box.get("id") for box in boxes}) == len(boxes)
        and all(
            box["image_id"] in images and box["category_id"] in categories and _is_complete(box)
            for box in boxes
        )
    )


def _is_complete(box: Mapping[str, Any]) -> bool:
    bbox, key = box["bbox"], box.get("id")
    return (
        isinstance(key, int)
        and key > 0
        and _is_number(box.get("area"))
        and "iscrowd" in box
        and not isinstance(box["iscrowd"], str)
        and isinstance(bbox, list)
        and len(bbox) == 4
        and all(map(_is_number, bbox))
        and not _rotation(box)
    )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _rotation(box: Mapping[str, Any]) -> float:
    """The angle in degrees by which CVAT's COCO files rotate a box about its centre."""
    attributes = box.get("attributes")
    angle = attributes.get("rotation") if isinstance(attributes, Mapping) else 0
    # The box of a mask is around it already.
    return angle % 180 if _is_number(angle) and not box.get("segmentation") else 0


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
        counts: counts the boxes that are left out, and the rotated ones.
        where: the annotation file, for the counts.
        split: that it is of.

    Returns:
        A new dictionary. Images keep their ids; categories and annotations are numbered from 1.
    """
    new = {**content, **_empty(classes)}
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {name: i for i, name in enumerate(classes, 1)}
    images = {image["id"]: image for image in content["images"]}
    new["images"] = list(content["images"])
    for box in content["annotations"]:
        name = names.get(box["category_id"])
        bbox = _usable_bbox(box, images, where, counts, split)
        if bbox is None:
            continue
        if name not in ids:
            place = f"{where}: category id {box['category_id']}"
            counts.add(UNKNOWN, place, split=split)
            continue
        image = images[box["image_id"]]
        _count_overhang(bbox, (image["width"], image["height"]), str(image["file_name"]), counts)
        x1, y1, x2, y2 = bbox
        changed: dict[str, Any] = {}
        if not _is_number(box.get("area")) or _rotation(box):
            changed["area"] = (x2 - x1) * (y2 - y1)
        if not all(map(_is_number, box["bbox"])) or _rotation(box):
            changed["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if _rotation(box):
            changed["attributes"] = {**box["attributes"], "rotation": 0}
        iscrowd = box.get("iscrowd") or 0
        changed["iscrowd"] = int(iscrowd == "1") if isinstance(iscrowd, str) else iscrowd
        changed["id"] = len(new["annotations"]) + 1
        new["annotations"].append({**box, **changed, "category_id": ids[name]})
    return new


def count_unusable(
    content: Mapping[str, Any], counts: Counts, where: str = "", split: str | None = None
) -> None:
    """Count the boxes of a COCO dictionary that have no area or are outside their image.

    Args:
        content: COCO dictionary.
        counts: counts them.
        where: the annotation file, for the counts.
        split: that it is of.
    """
    images = {image["id"]: image for image in content["images"]}
    for box in content["annotations"]:
        _usable_bbox(box, images, where, counts, split)


def _usable_bbox(
    box: Mapping[str, Any],
    images: Mapping[Any, Mapping[str, Any]],
    where: str,
    counts: Counts,
    split: str | None,
) -> tuple[float, float, float, float] | None:
    """A box as (x1, y1, x2, y2) in pixels, upright; None, and counted, if it cannot be used."""
    image = images.get(box["image_id"])
    if image is None:
        counts.add(UNLISTED, f"{where}: image id {box['image_id']}", split=split)
        return None
    place = f"{where}: {image['file_name']}"
    try:
        x, y, w, h = (float(value) for value in box["bbox"])
    except (TypeError, ValueError):
        counts.add(UNREADABLE, place, split=split)
        return None
    bbox = (x, y, x + w, y + h)
    if not is_usable(bbox, (image["width"], image["height"]), place, counts, split):
        return None
    if angle := _rotation(box):
        counts.add(ROTATED, place, split=split)
        bbox = around_rotated(bbox, angle)
    return bbox


def _empty(classes: Sequence[str]) -> dict[str, Any]:
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    return {"images": [], "annotations": [], "categories": categories}


def _count_overhang(
    bbox: tuple[float, float, float, float], size: tuple[float, float], where: str, counts: Counts
) -> None:
    """Count a box that reaches over the border, which stays as it is."""
    x1, y1, x2, y2 = bbox
    if max(-x1, -y1, x2 - size[0], y2 - size[1]) > SMALL_OVERHANG:
        counts.add("boxes that reach over the border of the image (kept)", where)
