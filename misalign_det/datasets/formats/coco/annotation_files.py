"""Which JSON files are COCO's, and of which split."""

import mmap
import os.path as osp
import re

from ....errors import InputError
from ..files import FolderFiles
from ..records import split_of_folder, split_of_words

ROBOFLOW = "_annotations.coco.json"
KEYS = ("images", "annotations", "categories")


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
    paths = json_files(files)
    for mark in (ROBOFLOW, "instances"):  # else also captions, keypoints, panoptic segments
        marked = [path for path in paths if osp.basename(path).startswith(mark)]
        paths = marked or paths
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(split_of_file(path) or "", []).append(path)
    if "train" in found:
        found.pop("trainval", None)
    elif "trainval" in found:
        found["train"] = found.pop("trainval")
    if set(found) - {""}:
        found.pop("", None)
    chosen = {}
    for split, several in found.items():
        coco = [path for path in several if has_lists(files, path)] if several[1:] else several
        if len(coco) > 1:
            raise InputError(
                f"{files.root}: {' and '.join(coco[:2])} are both COCO files of "
                f"{split or 'one'} split. Keep one of them below the folder."
            )
        damaged = (path for path in several if has_lists(files, path, damaged=True))
        chosen[split] = coco[0] if coco else next(damaged, several[0])
    return chosen


def json_files(files: FolderFiles) -> list[str]:
    """The JSON files that are of no single image; a link to nothing is none."""
    paths = [path for path in files.annotations(".json") if not files.has_image(path)]
    return [path for path in paths if osp.isfile(files.full(path))]


def split_of_file(path: str) -> str | None:
    """The split that an annotation file, or else a folder that it is in, is named after."""
    words = re.split(r"[-_. ]", osp.splitext(osp.basename(path))[0])
    return split_of_words(words) or split_of_folder(path)


def has_lists(files: FolderFiles, path: str, damaged: bool = False) -> bool:
    """Whether a file has lists of images and annotations; damaged: whether it names any of them.

    Other programs write files with one of the keys. Files are large: the beginning or the end of
    one of COCO's has a key, and only then is the rest searched.
    """
    with open(files.full(path), "rb") as opened:
        head = opened.read(4096)
        opened.seek(max(0, osp.getsize(files.full(path)) - 4096))
        text = (head + opened.read()).replace(b"\0", b"")  # UTF-16 has one beside each letter
        if not any(f'"{key}"'.encode() in text for key in KEYS):
            return False
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            data = mapped[:].replace(b"\0", b"") if b"\0" in head else mapped
            if damaged:
                return any(re.search(rb'"(images|annotations)"\s*:', part) for part in (text, data))
            return all(re.search(rb'"%s"\s*:\s*\[' % key.encode(), data) for key in KEYS[:2])


def is_coco(files: FolderFiles, damaged: bool = False) -> bool:
    """Whether any file is in COCO's format.

    Args:
        files: of the data folder.
        damaged: or perhaps was, for the error that says what it lacks.
    """
    return any(has_lists(files, path, damaged) for path in coco_files(files).values())
