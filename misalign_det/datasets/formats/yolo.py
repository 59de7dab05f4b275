"""YOLO: one text file per image, names of the classes in a YAML file or a list."""

import os.path as osp
from collections.abc import Mapping
from typing import Any

import yaml

from ...errors import InputError
from .boxes import UNKNOWN, UNREADABLE, load_globox, parse_box
from .files import FolderFiles, split_of_folder
from .records import SPLITS, AnnotatedImage, Counts, LabelledBox

_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
POLYGONS = "polygons read as the box around them"


def is_yolo(files: FolderFiles) -> bool:
    """Whether there are names of classes, or a text file that looks like an image's labels."""
    if _yaml(files)[1] or _class_list(files):
        return True
    texts = (files.text_of(image) for image in files.images[:50])
    return any(_has_labels(files.full(path)) for path in texts if path)


def read_yolo(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str]]:
    """Read the images and their text files; an image without one has no objects.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images, and the names of the classes in their order.

    Raises:
        InputError: there are no names of classes, or no labels, or the YAML file names a folder
            that is not there.
    """
    path, content = _yaml(files)
    names = _names(content) if content else _class_list(files)
    if not names:
        raise InputError(
            f"{files.root}: there are YOLO labels, but no names of classes. Add classes.txt with "
            "one name a line, or data.yaml with names."
        )
    splits = _split_folders(files, path, content)
    read, used = [], set()
    for image in files.images:
        text = files.text_of(image)
        if text:
            used.add(text)
        split = _split_of(image, splits) if splits else split_of_folder(image)
        if splits and split is None:
            counts.add("images in no split", image)
            continue
        size = files.size(image, counts)
        if size is None:
            continue
        found = AnnotatedImage(image, size, "train" if split == "trainval" else split)
        if text:
            found.boxes = _read_labels(files, text, size, names, counts)
        read.append(found)
    if not used:
        raise InputError(f"{files.root}: no text file has the name of an image.")
    folders = {osp.dirname(text) for text in used}
    for text in files.annotations(".txt"):
        if osp.dirname(text) in folders and text not in used and _has_labels(files.full(text)):
            counts.add("missing images", text)
    return read, names


def _read_labels(
    files: FolderFiles, path: str, size: tuple[int, int], names: list[str], counts: Counts
) -> list[LabelledBox]:
    """Read a text file; coordinates are parts of the image's width and height."""
    parse = load_globox().BoundingBox
    parsers = {5: parse.from_yolo_darknet, 6: parse.from_yolo_v5}  # 6: with a confidence
    boxes = []
    try:
        with open(files.full(path), encoding="utf-8") as opened:
            lines = opened.read().splitlines()
    except (OSError, UnicodeDecodeError):
        counts.add("unreadable annotations", path)
        return []
    for line in lines:
        number = len(line.split())
        if not number:
            continue
        box = parse_box(parsers.get(number, parse.from_yolo_seg), line, path, counts,
                        image_size=size)  # fmt: skip
        if box is None:
            continue
        if number > 6:
            counts.add(POLYGONS, path)
        try:
            index = int(float(box.label))
        except ValueError:
            counts.add(UNREADABLE, path)
            continue
        if 0 <= index < len(names):
            box.label = names[index]
            boxes.append(box)
        else:
            counts.add(UNKNOWN, path)
    return boxes


def _has_labels(path: str) -> bool:
    """Whether the first line of a text file is a class and four or more coordinates."""
    try:
        with open(path, encoding="utf-8") as opened:
            words = next((line.split() for line in opened if line.strip()), [])
        return len(words) >= 5 and all(float(word) >= 0 for word in words)
    except (OSError, ValueError):
        return False


def _yaml(files: FolderFiles) -> tuple[str, dict[str, Any]]:
    """Path and content of the uppermost YAML file with names of classes; empty if there is none."""
    for path in sorted(files.annotations(".yaml", ".yml"), key=lambda p: (p.count("/"), p)):
        try:
            with open(files.full(path), encoding="utf-8") as opened:
                content = yaml.safe_load(opened)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{files.full(path)} is not valid YAML: {error}") from None
        if isinstance(content, Mapping) and content.get("names"):
            return path, dict(content)
    return "", {}


def _names(content: Mapping[str, Any]) -> list[str]:
    """Names of the classes in a YAML file, a list or a dict of numbers."""
    names = content["names"]
    if isinstance(names, Mapping):
        names = [names.get(i, f"class {i}") for i in range(max(map(int, names)) + 1)]
    return [str(name) for name in names]


def _class_list(files: FolderFiles) -> list[str]:
    """Names of the classes in the uppermost list of them; empty if there is none."""
    paths = files.annotations(".txt", ".names", ".labels")
    paths = [p for p in paths if osp.basename(p) in _LISTS or p.endswith(".names")]
    for path in sorted(paths, key=lambda p: (p.count("/"), p)):
        with open(files.full(path), encoding="utf-8") as opened:
            return [line.strip() for line in opened if line.strip()]
    return []


def _split_folders(files: FolderFiles, path: str, content: Mapping[str, Any]) -> dict[str, str]:
    """{folder or image: split}, from a YAML file; empty if it names no splits."""
    found: dict[str, str] = {}
    for split in SPLITS:
        value = content.get(split) or (content.get("valid") if split == "val" else None)
        for part in value if isinstance(value, list) else [value]:
            if not part:
                continue
            place = _place(files, osp.dirname(path), str(content.get("path") or ""), str(part))
            if place is None:
                raise InputError(
                    f"{files.full(path)}: {split} is {part}, which is not below {files.root}. "
                    "Correct the path."
                )
            if place.endswith(".txt"):
                with open(files.full(place), encoding="utf-8") as opened:
                    for line in opened:
                        image = files.image_named(line.strip(), place) if line.strip() else None
                        if image:
                            found.setdefault(image, split)
            else:
                found.setdefault(place, split)
    return found


def _place(files: FolderFiles, folder: str, base: str, part: str) -> str | None:
    """A path of a YAML file, relative to the data folder.

    The file may come from another machine, or lie elsewhere than its exporter thought. So ``..``
    is left out, and of ``base`` or an absolute path the longest ending that is there counts.
    """
    absolute = part.startswith("/") or part[1:2] == ":"
    head_words, words = _words(base), _words(part)
    last = len(words) - 1 if absolute else len(head_words)
    words = words if absolute else [*head_words, *words]
    for start in range(last + 1):
        for head in (folder, ""):
            place = "/".join([*head.split("/"), *words[start:]]).lstrip("/")
            if osp.exists(files.full(place)):
                return place
    return None


def _words(path: str) -> list[str]:
    return [w for w in path.replace("\\", "/").split("/") if w not in ("", ".", "..")]


def _split_of(image: str, splits: Mapping[str, str]) -> str | None:
    """The split of an image: its own, or that of the innermost folder that has one."""
    place = image
    while place:
        if place in splits:
            return splits[place]
        place = osp.dirname(place)
    return None
