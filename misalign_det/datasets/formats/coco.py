"""COCO: one JSON file per split, also as Roboflow and CVAT export it."""

import json
import mmap
import os.path as osp
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.json_file import no_garbage_collection, read_json
from .boxes import OTHER_SIZE
from .files import MISSING_IMAGES, FolderFiles
from .records import NOT_READ, CocoSplit, Counts, split_of_folder, split_of_words
from .standard import listed_once, with_names, with_same_ids
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
    paths = _json_files(files)
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
    chosen = {}
    for split, several in found.items():
        coco = [path for path in several if _is_coco(files, path)] if several[1:] else several
        if len(coco) > 1:
            raise InputError(
                f"{files.root}: {' and '.join(coco[:2])} are both COCO files of "
                f"{split or 'one'} split. Keep one of them below the folder."
            )
        damaged = (path for path in several if _is_coco(files, path, damaged=True))
        chosen[split] = coco[0] if coco else next(damaged, several[0])
    return chosen


def _json_files(files: FolderFiles) -> list[str]:
    """The JSON files that are of no single image; a link to nothing is none."""
    paths = [path for path in files.annotations(".json") if not files.has_image(path)]
    return [path for path in paths if osp.isfile(files.full(path))]


def _split_of_file(path: str) -> str | None:
    """The split that an annotation file, or else a folder that it is in, is named after."""
    words = re.split(r"[-_. ]", osp.splitext(osp.basename(path))[0])
    return split_of_words(words) or split_of_folder(path)


def _is_coco(files: FolderFiles, path: str, damaged: bool = False) -> bool:
    """Whether a file has lists of images and annotations; damaged: whether it names any of them.

    Other programs write files with one of the keys. Files are large: the beginning or the end of
    one of COCO's has a key, and only then is the rest searched.
    """
    with open(files.full(path), "rb") as opened:
        head = opened.read(4096)
        opened.seek(max(0, osp.getsize(files.full(path)) - 4096))
        text = (head + opened.read()).replace(b"\0", b"")  # UTF-16 has one beside each letter
        if not any(f'"{key}"'.encode() in text for key in _KEYS):
            return False
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            data = mapped[:].replace(b"\0", b"") if b"\0" in head else mapped
            if damaged:
                return any(re.search(rb'"(images|annotations)"\s*:', part) for part in (text, data))
            return all(re.search(rb'"%s"\s*:\s*\[' % key.encode(), data) for key in _KEYS[:2])


def is_coco(files: FolderFiles, damaged: bool = False) -> bool:
    """Whether any file is in COCO's format.

    Args:
        files: of the data folder.
        damaged: or perhaps was, for the error that says what it lacks.
    """
    return any(_is_coco(files, path, damaged) for path in coco_files(files).values())


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
    for path in _json_files(files):
        if _split_of_file(path) or not _is_coco(files, path):
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
    new = _with_names_below(content, files, path, counts)
    folder = _image_folder(files, path, new["images"]) if new is content else Path(files.root)
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


def _image_folder(files: FolderFiles, path: str, images: Sequence[Mapping]) -> Path:
    """The folder below which most of the images are."""
    folders: dict[str, int] = {}
    split, tie = _split_of_file(path), None
    for sample in (images[:: max(1, len(images) // 100)], images):
        for image in sample if not folders else ():
            name = str(image["file_name"]).removeprefix("./")
            try:
                found, _ = files.find_image(name, path, split)
            except InputError as error:  # others may show which folder it is
                found, tie = None, error
            if found and f"/{found}".endswith(f"/{name}"):
                folder = found[: -len(name)].rstrip("/")
                folders[folder] = folders.get(folder, 0) + 1
    if not folders:
        raise tie or _not_below(files, path, images)
    return Path(files.root, max(folders, key=lambda folder: folders[folder]))


def _not_below(files: FolderFiles, path: str, images: Sequence[Mapping]) -> InputError:
    first = f", such as {images[0]['file_name']}," if images else ""
    return InputError(
        f"{files.full(path)}: its images{first} are not below {files.root}. Give the folder that "
        "has them, or correct file_name."
    )


def _with_names_below(content: dict, files: FolderFiles, path: str, counts: Counts) -> dict:
    """The content with file names relative to the data folder, if any is of another kind.

    These are names of Windows, absolute ones, and those that lead out of a folder: exporters write
    where the images lay. The same object if there is none. Two names may end alike: the image is
    that of the name with more folders in common, and no one's if none has.

    Raises:
        InputError: none of the images is below the data folder, or two fit one name alike.
    """
    stated = {str(image["file_name"]): 0 for image in content["images"]}
    if not any(map(_is_foreign, stated)):
        return content
    there, split = set(files.images), _split_of_file(path)
    exact: dict[str, str] = {}
    found: dict[str, list[tuple[int, str]]] = {}  # {image: names, with folders in common}
    for name in stated:
        plain = name.replace("\\", "/")
        below = osp.relpath(osp.realpath(plain), osp.realpath(files.root))
        places = [below] if plain.startswith("/") else [osp.join(osp.dirname(path), plain), plain]
        place = next((p for p in map(osp.normpath, places) if p in there), None)
        image = place or files.find_image(plain, path, split)[0]
        if place:
            exact[name] = place
        elif image:
            words, own = plain.split("/")[::-1], image.split("/")[::-1]
            found.setdefault(image, []).append((len(osp.commonprefix([words, own])), name))
    taken = set(exact.values())
    for image, names in found.items():
        most = max(names)[0]
        best = [name for common, name in names if common == most]
        if image not in taken and len(best) == 1:
            exact[best[0]] = image
            counts.add("images found elsewhere than their file_name says", f"{path}: {best[0]}")
    if not exact:
        raise _not_below(files, path, content["images"])
    images = [
        {**image, "file_name": exact.get(str(image["file_name"]), image["file_name"])}
        for image in content["images"]
    ]
    return {**content, "images": images}


def _is_foreign(name: str) -> bool:
    return "\\" in name or name[:1] == "/" or name[1:2] == ":" or osp.normpath(name)[:2] == ".."
