"""COCO: one JSON file per split, also as Roboflow and CVAT export it."""

import json
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.json_file import no_garbage_collection, read_json
from .boxes import OTHER_SIZE
from .files import MISSING_IMAGES, FolderFiles, split_of_folder, split_of_words
from .records import MERGED, CocoSplit, Counts
from .text import GUESSES, RECODED, decode

ROBOFLOW = "_annotations.coco.json"
_KEYS = ("images", "annotations", "categories")
_NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def coco_files(files: FolderFiles) -> dict[str, str]:
    """The annotation file of each split, by the names of files and folders.

    Args:
        files: of the data folder.

    Returns:
        {split: relative path}. The split is ``''`` for a file whose name is no split's; such a file
        counts only where no other does. Contents are not read: a file may be something else.

    Raises:
        InputError: two files are of the same split.
    """
    paths = [path for path in files.annotations(".json") if files.image_of(path) is None]
    for mark in (ROBOFLOW, "instances"):  # else also captions, keypoints, panoptic segments
        marked = [path for path in paths if osp.basename(path).startswith(mark)]
        paths = marked or paths
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_split_of_file(path) or "", []).append(path)
    if "train" in found:
        found.pop("trainval", None)
    elif "trainval" in found:
        found["train"] = found.pop("trainval")
    if set(found) - {""}:
        found.pop("", None)
    for split, several in found.items():
        if len(several) > 1 and len(coco := [p for p in several if _is_coco(files, p)]) > 1:
            raise InputError(
                f"{files.root}: {' and '.join(coco[:2])} are both COCO files of "
                f"{split or 'one'} split. Keep one of them below the folder."
            )
    return {split: next((p for p in several if _is_coco(files, p)), several[0])
            for split, several in found.items()}  # fmt: skip


def _split_of_file(path: str) -> str | None:
    """The split that an annotation file, or else a folder that it is in, is named after."""
    words = re.split(r"[-_. ]", osp.splitext(osp.basename(path))[0])
    return split_of_words(words) or split_of_folder(path)


def _is_coco(files: FolderFiles, path: str) -> bool:
    """Whether the beginning or the end of a file has a key of COCO's."""
    with open(files.full(path), "rb") as opened:
        head = opened.read(4096)
        opened.seek(max(0, osp.getsize(files.full(path)) - 4096))
        text = (head + opened.read()).replace(b"\0", b"")  # UTF-16 has one beside each letter
    return any(f'"{key}"'.encode() in text for key in _KEYS)


def is_coco(files: FolderFiles) -> bool:
    """Whether any file is in COCO's format."""
    return any(_is_coco(files, path) for path in coco_files(files).values())


def read_coco(
    files: FolderFiles, counts: Counts, open_images: bool = False
) -> dict[str, CocoSplit]:
    """Read the annotation file of each split, and repair what can be repaired.

    Images that are missing or cannot be opened are left out with their boxes, entries of the same
    image or category become one, sizes that are not stated are read from the images, and ids that
    are a string in one place and a number in another are made alike.

    Args:
        files: of the data folder.
        counts: counts what is left out or repaired.
        open_images: open each image. Default: in a small folder, and where no size is stated.

    Returns:
        {split: content}; the split is ``''`` where the folder names none. A split keeps its
        ``file`` if nothing had to be changed.

    Raises:
        InputError: a file is not in COCO's format, its images are not below the folder, a class
            has no name, or an id is that of two classes or images.
    """
    return {
        split: _read_file(files, path, split, counts, open_images or files.small)
        for split, path in coco_files(files).items()
    }


def _read_file(
    files: FolderFiles, path: str, split: str, counts: Counts, open_images: bool
) -> CocoSplit:
    full = files.full(path)
    content, plain = _parsed(full, path, counts)
    lacking = [
        key for key in _KEYS
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]  # fmt: skip
    if lacking:
        raise InputError(f"{full} is not in COCO format: it has no list of {', '.join(lacking)}.")
    for key, needed in _NEEDED.items():
        ids = [name for name in needed if name.endswith("id")]
        for entry in content[key]:
            if not isinstance(entry, dict) or any(name not in entry for name in needed):
                raise InputError(f"{full}: not all {key} have {', '.join(needed)}.")
            for name in ids:
                if not isinstance(entry[name], (int, float, str)):
                    raise InputError(
                        f"{full}: {name} of {key} is a number or a string, not {entry[name]!r}."
                    )
    folder = _image_folder(files, path, content["images"])
    new = _with_names(content, full, path, counts)
    new = _listed_once(new, full, path, counts)
    new = _with_same_ids(new, path, counts)
    new = _usable(new, files, folder, split, counts, open_images)
    return CocoSplit(new, folder, Path(full) if plain and new is content else None)


def _parsed(full: str, path: str, counts: Counts) -> tuple[Any, bool]:
    """The content of a JSON file; and whether it is in UTF-8, the only encoding pycocotools reads.

    Raises:
        InputError: it is no JSON.
    """
    with no_garbage_collection():
        text, encoding = decode(Path(full).read_bytes())
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            return read_json(full, "the data folder"), False  # raises and says why, but for UTF-16
    counts.add(RECODED, path, number=int(encoding in GUESSES))
    return content, encoding == "utf-8"


def _with_names(content: dict, full: str, path: str, counts: Counts) -> dict:
    """The content with a name for each category id; the same object if nothing is to be changed.

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


def _listed_once(content: dict, full: str, path: str, counts: Counts) -> dict:
    """The content with one entry per image, which has the boxes of all its entries.

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


def _with_same_ids(content: dict, path: str, counts: Counts) -> dict:
    """The content with ids in the boxes of the type that they have in images and categories."""
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


def _usable(
    content: dict, files: FolderFiles, folder: Path, split: str, counts: Counts, open_images: bool
) -> dict:
    """The content with the images that can be opened, and the sizes that they have."""
    head, there = osp.relpath(folder, files.root), set(files.images)
    images, left_out = [], set()
    for image in content["images"]:
        path = osp.normpath(osp.join(head, str(image["file_name"])))
        stated = (image.get("width"), image.get("height"))
        known = all(isinstance(side, (int, float)) and side > 0 for side in stated)
        size: tuple | None = stated
        if path not in there and not osp.isfile(files.full(path)):
            counts.add(MISSING_IMAGES, path, split=split)
            size = None
        elif open_images or not known:
            size = files.size(path, counts, split)
        if size is None:
            left_out.add(image["id"])
        elif size == stated:
            images.append(image)
        else:
            kind = OTHER_SIZE if known else "images without a size, which was read from the file"
            counts.add(kind, path)
            images.append({**image, "width": size[0], "height": size[1]})
    if not left_out and all(new is old for new, old in zip(images, content["images"])):
        return content
    boxes = [box for box in content["annotations"] if box["image_id"] not in left_out]
    number = len(content["annotations"]) - len(boxes)
    counts.add("boxes of images that are left out", number=number, split=split)
    return {**content, "images": images, "annotations": boxes}


def _image_folder(files: FolderFiles, path: str, images: Sequence[Mapping]) -> Path:
    """The folder below which most of the images are."""
    folders: dict[str, int] = {}
    split = _split_of_file(path)
    for sample in (images[:: max(1, len(images) // 100)], images):
        for image in sample if not folders else ():
            name = str(image["file_name"]).removeprefix("./")
            found = files.image_named(name, path, split)
            if found and f"/{found}".endswith(f"/{name}"):
                folder = found[: -len(name)].rstrip("/")
                folders[folder] = folders.get(folder, 0) + 1
    if not folders:
        first = f", such as {images[0]['file_name']}," if images else ""
        raise InputError(f"{files.full(path)}: its images{first} are not below {files.root}.")
    return Path(files.root, max(folders, key=lambda folder: folders[folder]))


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
