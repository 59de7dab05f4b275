"""COCO dictionaries as mmdet and pycocotools expect them, from any reader."""

from collections.abc import Mapping, Sequence
from typing import Any

from .boxes import is_usable
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
            if not is_usable(box.bbox, image.size, image.path, counts):
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
        False if the categories come in another order, or if boxes lack ``area``, ``iscrowd`` or an
        id of their own above 0, without which pycocotools counts them otherwise or not at all.
    """
    order = [c["name"] for c in content["categories"] if c["name"] in classes]
    boxes = content["annotations"]
    ids = {box.get("id") for box in boxes}
    return (
        order == list(classes)
        and len(ids) == len(boxes)
        and all(
            isinstance(box.get("id"), int) and box["id"] > 0 and "area" in box and "iscrowd" in box
            for box in boxes
        )
    )


def standardise(
    content: Mapping[str, Any], classes: Sequence[str], counts: Counts
) -> dict[str, Any]:
    """Make a COCO dictionary of which :func:`is_standard` holds; other keys are kept.

    Args:
        content: COCO dictionary; not changed.
        classes: names of the categories, in the wanted order.
        counts: counts the boxes that are left out.

    Returns:
        A new dictionary. Images keep their ids; categories and annotations are numbered from 1.
    """
    new = {**content, **_empty(classes)}
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = {name: i for i, name in enumerate(classes, 1)}
    images = {image["id"]: image for image in content["images"]}
    new["images"] = list(content["images"])
    for box in content["annotations"]:
        image = images.get(box["image_id"])
        name = names.get(box["category_id"])
        if image is None:
            counts.add("boxes of images that are not listed", f"image id {box['image_id']}")
            continue
        if name not in ids:
            counts.add("boxes of unknown classes", str(image["file_name"]))
            continue
        try:
            x, y, w, h = (float(value) for value in box["bbox"])
        except (TypeError, ValueError):
            counts.add("unreadable boxes", str(image["file_name"]))
            continue
        size = (image.get("width") or float("inf"), image.get("height") or float("inf"))
        if not is_usable((x, y, x + w, y + h), size, str(image["file_name"]), counts):
            continue
        _count_overhang((x, y, x + w, y + h), size, str(image["file_name"]), counts)
        new["annotations"].append(
            {
                "area": w * h,
                "iscrowd": 0,
                **box,
                "id": len(new["annotations"]) + 1,
                "category_id": ids[name],
            }
        )
    return new


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
