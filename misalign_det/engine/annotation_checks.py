"""Checks of annotation files against what mmdet makes of them. Pure: they read, count and raise.

`where` is the config key of the dataset that a message is about. Functions that return a list
return notes: what is counted and left out. `InputError` is for what would stop training, or spoil
it unseen.
"""

import gc
import json
import math
import os.path as osp
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import contextmanager

import numpy as np

_SKIP_EXTRA = "--cfg-options preflight.extra_categories=skip"


class InputError(ValueError):
    """The input cannot be used; the message names what is wrong and what to do."""


class Remark(str):
    """A note about something that is counted, but by which nothing is lost."""


def some(names, limit=5):
    """The first few of many names, for a message."""
    names = [str(n) for n in names]
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")


@contextmanager
def no_garbage_collection():
    """Hold the collector: it would walk the millions of objects of a large file again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_json(path, where, root=None):
    """Parse a JSON file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    if not osp.isfile(path):
        raise InputError(
            f"{where}: there is no annotation file {path} (data_root is {root!r}). Set the root "
            "with --cfg-options data_root=FOLDER or the environment variable named at the head of "
            "the data config.")
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: {path} is not valid JSON ({error}; the file has {osp.getsize(path)} bytes). "
            "Perhaps it was cut off while it was copied; fetch or export it again.") from None


def coco_parts(content, path, where, annotated=True):
    """The images, annotations and categories of a COCO file, checked for what mmdet needs of them.

    Args:
        content: what `read_json` returned.
        annotated (bool): False allows a file without annotations (test images).

    Returns:
        tuple[list[dict], list[dict], list[dict]]: images, annotations, categories.

    Raises:
        InputError: a part or a key is missing, an id occurs twice, or a number is none.
    """
    needed = {"images": ("id", "file_name", "width", "height"),
              "annotations": ("id", "image_id", "category_id", "bbox", "area"),
              "categories": ("id", "name")}
    form = f"COCO format is an object with the lists {', '.join(needed)}."
    if not isinstance(content, dict):
        raise InputError(f"{where}: {path} holds a JSON {type(content).__name__}. {form}")
    parts = []
    for part, keys in needed.items():
        optional = part == "annotations" and not annotated
        entries = content.get(part, [] if optional else None)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(f"{where}: {path} has no list of objects {part!r}; it has "
                             f"{some(content, 8) or 'nothing'}. {form}")
        for key in keys:
            bad = [i for i, entry in enumerate(entries) if key not in entry]
            if bad:
                raise InputError(f"{where}: {path}: {len(bad)} of {len(entries)} {part} lack the "
                                 f"key {key!r} (first: number {bad[0]} of the list). Add it.")
            if key in ("width", "height", "area"):
                bad = [e for e in entries if not isinstance(e[key], (int, float))]
                if bad:
                    raise InputError(f"{where}: {path}: {key} of {part} with id "
                                     f"{some(e['id'] for e in bad)} is not a number.")
        twice = [i for i, n in Counter(e["id"] for e in entries).items() if n > 1]
        if twice:
            raise InputError(f"{where}: {path}: these ids of {part} occur more than once: "
                             f"{some(twice)}. Give each entry an id of its own.")
        parts.append(entries)
    if not parts[0]:
        raise InputError(f"{where}: {path} lists no images.")
    return tuple(parts)


def check_references(images, annotations, categories, path, where):
    """Every annotation must point to an image and a category of the file.

    Raises:
        InputError: some do not; the message counts and names them.
    """
    for part, entries in (("image", images), ("category", categories)):
        key = f"{part}_id"
        known = {e["id"] for e in entries}
        lost = [a for a in annotations if a[key] not in known]
        if lost:
            raise InputError(
                f"{where}: {path}: {len(lost)} of {len(annotations)} annotations point to a {part} "
                f"that the file does not list ({key} {some({str(a[key]): 0 for a in lost})}; "
                f"annotation ids {some(a['id'] for a in lost)}). Add the {part} to the file or "
                "remove the annotations.")


def check_categories(annotations, categories, classes, path, where, extra="error"):
    """The file's categories must be the dataset's classes, in the same order.

    mmdet looks classes up by name in the file's order, so a missing one or another order would give
    the following classes each other's labels without a word.

    Args:
        classes (tuple[str]): the dataset's metainfo.
        extra (str): 'error' or 'skip', what to do about a category that is no class.

    Returns:
        list[str]: with 'skip', how many boxes are left out.

    Raises:
        InputError: names both sides and what to change.
    """
    names = [c["name"] for c in categories]
    lacking = [c for c in classes if c not in names]
    unknown = [n for n in names if n not in classes]
    both = f"The file has: {some(names, 10)}. The dataset's metainfo has: {some(classes, 10)}."
    change = f"{where}.metainfo.classes={_tuple(names)} and the head's num_classes to {len(names)}"
    if lacking:
        raise InputError(
            f"{where}: {path} has no category {some(map(repr, lacking))}. {both} If the file is "
            f"right, set {change}; otherwise correct its names (case and spaces count).")
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{where}: {path} has several categories called {some(twice)}. Merge them.")
    notes = []
    if unknown:
        ids = {c["id"] for c in categories if c["name"] in unknown}
        count = sum(a["category_id"] in ids for a in annotations)
        what = f"category {some(map(repr, unknown))} ({count} boxes)"
        if extra != "skip":
            raise InputError(
                f"{where}: {path} has the {what}, which is no class of the dataset. {both} Set "
                f"{change}; or leave the boxes out with {_SKIP_EXTRA}.")
        notes.append(f"{where}: the {what} is no class of the dataset and is left out.")
    order = [n for n in names if n in classes]
    if order != list(classes):
        raise InputError(
            f"{where}: {path} lists the classes in another order than the dataset, so their labels "
            f"would be exchanged. {both} Set {where}.metainfo.classes={_tuple(order)}.")
    return notes


def _tuple(names):
    """Names as a tuple to paste; many are cut short."""
    return "(" + "".join(f"{n!r}, " for n in names[:10]).strip() + ("...)" if names[10:] else ")")


def check_boxes(images, annotations, where, path, training, filter_cfg=None):
    """Count what mmdet's CocoDataset and Resize leave out or clip.

    Args:
        annotations (list[dict]): those of the dataset's classes; boxes x, y, w, h in pixels.

    Returns:
        list[str]: notes on unusable and clipped boxes, images without objects, too small images.

    Raises:
        InputError: a box is not four finite numbers, or training would have nothing to learn from.
    """
    try:
        boxes = np.array([a["bbox"] for a in annotations]).reshape(-1, 4)
        proper = (len(boxes) == len(annotations) and boxes.dtype.kind in "iuf"
                  and np.isfinite(boxes).all())
    except ValueError:  # lists of different lengths
        proper = False
    if not proper:
        wrong = [a for a in annotations if not _four_numbers(a["bbox"])]
        raise InputError(
            f"{where}: {path}: {len(wrong)} annotations have a bbox that is not four finite "
            f"numbers [x, y, width, height]; the first has id {wrong[0]['id']}, bbox "
            f"{wrong[0]['bbox']}. Correct or remove them.")
    area = np.array([a["area"] for a in annotations], float)
    kept = np.array([not a.get("ignore") for a in annotations], bool)
    size = {i["id"]: (i["width"], i["height"]) for i in images}
    extent = np.array([size[a["image_id"]] for a in annotations], float).reshape(-1, 2)
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    seen = np.clip(np.minimum(high, extent) - np.maximum(low, 0), 0, None).prod(1)
    # The conditions of mmdet's CocoDataset.parse_data_info.
    flat = (boxes[:, 2] < 1) | (boxes[:, 3] < 1) | (area <= 0)
    outside = ~flat & (seen == 0)
    usable = kept & ~flat & ~outside
    beyond = usable & ((low < -0.5) | (high > extent + 0.5)).any(1)
    notes = []
    for mask, what in ((flat, "have no area (a side below 1 pixel, or area 0) and are skipped"),
                       (outside, "lie outside their image and are skipped"),
                       (beyond, "reach over the border of their image and are clipped to it")):
        if mask.any():
            ids = some(annotations[i]["id"] for i in np.flatnonzero(mask))
            notes.append(
                f"{where}: {mask.sum()} of {len(boxes)} boxes {what} (annotation ids {ids}).")
    used = {annotations[i]["image_id"] for i in np.flatnonzero(usable)}
    empty = [i["file_name"] for i in images if i["id"] not in used]
    settings = filter_cfg or {}
    if empty:
        left_out = training and settings.get("filter_empty_gt")
        fate = "left out (filter_empty_gt=True)" if left_out else "kept as background"
        notes.append((str if left_out else Remark)(
            f"{where}: {len(empty)} of {len(images)} images have no objects and are {fate}: "
            f"{some(empty, 3)}."))
    if training:
        limit = settings.get("min_size", 0)
        small = sum(min(i["width"], i["height"]) < limit for i in images)
        if small:
            notes.append(f"{where}: {small} of {len(images)} images have a side below min_size="
                         f"{limit} and are left out.")
        if not usable.any() or small == len(images):
            raise InputError("\n".join([f"{where}: {path} has nothing to train on.", *notes]))
    return notes


def _four_numbers(box):
    return (isinstance(box, list) and len(box) == 4
            and all(isinstance(v, (int, float)) and math.isfinite(v) for v in box))


def check_voc(ids, xml_path, classes, where, extra="error"):
    """Every VOC file must be there and parse, and name only classes of the dataset.

    Args:
        ids (list[str]): the names in the split's list.
        xml_path (Callable): from such a name to the path of its XML file.
        classes, extra: as for `check_categories`.

    Returns:
        list[str]: notes on boxes without area and images without objects.

    Raises:
        InputError: files are missing or malformed, or a name is no class.
    """
    absent, broken, names, flat, empty = [], [], Counter(), 0, 0
    for name in ids:
        path = xml_path(name)
        try:
            objects = ET.parse(path).getroot().findall("object")
            for item in objects:
                names[item.find("name").text] += 1
                x1, y1, x2, y2 = (float(item.find(f"bndbox/{k}").text)
                                  for k in ("xmin", "ymin", "xmax", "ymax"))
                flat += not (x2 > x1 and y2 > y1)
            empty += not objects
        except FileNotFoundError:
            absent.append(path)
        except (ET.ParseError, AttributeError, TypeError, ValueError) as error:
            broken.append(f"{path} ({error})")
    for paths, what in ((absent, "missing"), (broken, "malformed")):
        if paths:
            raise InputError(f"{where}: {len(paths)} of {len(ids)} annotation files are {what}: "
                             f"{some(paths, 3)}. Correct them, data_root, or the split's list.")
    unknown = [n for n in names if n not in classes]
    if unknown and extra != "skip":
        raise InputError(
            f"{where}: the annotations name {some(map(repr, unknown))}, which is no class of the "
            f"dataset. The dataset's metainfo has: {some(classes, 20)}. Add it there and to the "
            f"head's num_classes, or leave the boxes out with {_SKIP_EXTRA}.")
    notes = []
    if flat:
        notes.append(f"{where}: {flat} of {sum(names.values())} boxes have no area.")
    if empty:
        notes.append(Remark(f"{where}: {empty} of {len(ids)} images have no objects."))
    return notes
