"""COCO: one JSON file per split, also as Roboflow and CVAT export it."""

import os.path as osp
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.json_file import no_garbage_collection, read_json
from .files import FolderFiles, split_of_folder, split_of_words
from .records import CocoSplit

ROBOFLOW = "_annotations.coco.json"
_KEYS = ("images", "annotations", "categories")


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
        text = head + opened.read()
    return any(f'"{key}"'.encode() in text for key in _KEYS)


def is_coco(files: FolderFiles) -> bool:
    """Whether any file is in COCO's format."""
    return any(_is_coco(files, path) for path in coco_files(files).values())


def read_coco(files: FolderFiles) -> dict[str, CocoSplit]:
    """Read the annotation file of each split.

    Args:
        files: of the data folder.

    Returns:
        {split: content as it is in the file}; the split is ``''`` where the folder names none.

    Raises:
        InputError: a file is not in COCO's format, or its images are not below the folder.
    """
    return {split: read_coco_file(files, path) for split, path in coco_files(files).items()}


def read_coco_file(files: FolderFiles, path: str) -> CocoSplit:
    """Read one annotation file.

    Args:
        files: of the data folder.
        path: relative to the folder.

    Raises:
        InputError: see :func:`read_coco`.
    """
    full = files.full(path)
    with no_garbage_collection():
        content = read_json(full, "the data folder")
    lacking = [
        key for key in _KEYS
        if not isinstance(content, dict) or not isinstance(content.get(key), list)
    ]  # fmt: skip
    if lacking:
        raise InputError(f"{full} is not in COCO format: it has no list of {', '.join(lacking)}.")
    for key, needed in (
        ("images", ("id", "file_name")),
        ("annotations", ("image_id", "category_id", "bbox")),
        ("categories", ("id", "name")),
    ):
        for entry in content[key]:
            if not isinstance(entry, dict) or any(name not in entry for name in needed):
                raise InputError(f"{full}: not all {key} have {', '.join(needed)}.")
    return CocoSplit(content, _image_folder(files, path, content["images"]), Path(full))


def _image_folder(files: FolderFiles, path: str, images: Sequence[Mapping]) -> Path:
    """The folder below which most of the images are."""
    folders: dict[str, int] = {}
    sample, split = images[:: max(1, len(images) // 100)], _split_of_file(path)
    for image in sample:
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
