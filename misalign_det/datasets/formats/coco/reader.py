"""Read COCO's files, and repair what can be repaired."""

import json
import os.path as osp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....utils.json_file import no_garbage_collection, read_json
from ..boxes import OTHER_SIZE
from ..files import MISSING_IMAGES, FolderFiles
from ..records import NOT_READ, CocoSplit, Counts
from ..standard import listed_once, with_names, with_same_ids
from ..text import GUESSES, RECODED, decode
from .annotation_files import KEYS, coco_files, has_lists, json_files, split_of_file
from .image_names import with_folders, with_names_below

_NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


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
    paths = coco_files(files)
    read = {
        split: _read_file(files, path, split, counts, open_images or files.small)
        for split, path in paths.items()
    }
    if set(read) - {""}:
        _check_unread(files, read, counts)
    return read


def _check_unread(files: FolderFiles, read: Mapping[str, CocoSplit], counts: Counts) -> None:
    """Count the COCO files that are not read, since only the names of others have splits.

    Raises:
        InputError: none of the others is train's, and such a file has images of its own.
    """
    known = {
        osp.relpath(osp.join(split.images, image["file_name"]), files.root)
        for split in read.values()
        for image in split.content["images"]
    }
    for path in json_files(files):
        if split_of_file(path) or not has_lists(files, path):
            continue
        try:
            other = _read_file(files, path, "", Counts(), False)
        except InputError:  # without boxes, such as captions
            continue
        annotated = {box["image_id"] for box in other.content["annotations"]}
        places = [
            osp.relpath(osp.join(other.images, image["file_name"]), files.root)
            for image in other.content["images"]
            if image["id"] in annotated
        ]
        more = [place for place in places if place not in known]
        if more and "train" not in read:
            raise InputError(
                f"{files.full(path)}: {len(more)} of its images, such as {more[0]}, are in no "
                f"other COCO file, but only {' and '.join(read)} has its split in its name. Rename "
                f"this one to train_{osp.basename(path)}, or take it out of the folder."
            )
        counts.add(NOT_READ, f"{path}: {len(more)} images that no other has" if more else path)


def _read_file(
    files: FolderFiles, path: str, split: str, counts: Counts, open_images: bool
) -> CocoSplit:
    full = files.full(path)
    content, plain = _parsed(full, path, counts)
    lacking = [
        key for key in KEYS
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
    new = with_names_below(content, files, path, counts)
    if new is content:
        new, folder = with_folders(content, files, path, counts)
    else:
        folder = Path(files.root)
    new = with_names(new, full, path, counts)
    new = listed_once(new, full, path, counts)
    new = with_same_ids(new, path, counts)
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
