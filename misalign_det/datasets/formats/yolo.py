"""YOLO: one text file per image, names of the classes in a YAML file or a list."""

import os.path as osp
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import yaml

from ...errors import InputError
from .boxes import NOT_RELATIVE, POLYGONS, UNKNOWN, UNREADABLE, load_globox, parse_box
from .files import IMAGE_SUFFIXES, MISSING_IMAGES, UNREADABLE_FILES, FolderFiles, place_of
from .records import (
    COPIES,
    MERGED,
    NO_SPLIT,
    SPLITS,
    AnnotatedImage,
    Counts,
    LabelledBox,
    first_split,
    split_of_folder,
    split_of_words,
)
from .text import parse_yaml, read_text

_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
_TESTED = 200  # text files that are read to see whether they are labels
_HIGHEST = 1.5  # of a coordinate; some labels reach a little over the border


def is_yolo(files: FolderFiles) -> bool:
    """Whether a text file looks like an image's labels."""
    texts = (path for path in map(files.text_of, files.images) if path)
    return any(_has_labels(files.full(path)) for path in islice(texts, _TESTED))


def has_class_names(files: FolderFiles) -> bool:
    """Whether there are names of classes, which other tools than those of YOLO write too."""
    return bool(_yaml(files)[1] or _class_list(files)[1])


def read_yolo(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str]]:
    """Read the images and their text files; an image without one has no objects.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images, and the names of the classes in their order.

    Raises:
        InputError: there are no names of classes, or no labels, or the YAML file cannot be read
            or names a folder that is not there.
    """
    path, content, fault = _yaml(files)
    place, names = (path, _names(files, path, content)) if content else _class_list(files)
    if not names:
        if fault:
            raise fault
        raise InputError(
            f"{files.root}: there are YOLO labels, but no names of classes. Add classes.txt with "
            "one name a line, or data.yaml with names."
        )
    read_text(files.full(place), counts, place)  # counted if its encoding is a guess
    _check_names(names, files.full(place), content.get("nc"))
    for i, name in enumerate(names):
        if name in names[:i]:
            counts.add(MERGED, f"{place}: {name!r} is class {names.index(name)} and {i}")
    splits = _split_folders(files, path, content, counts)
    lists = {} if splits else _split_lists(files, counts)
    split_of = {
        image: first_split(
            _split_of(image, splits) if splits else lists.get(image) or split_of_folder(image)
        )
        for image in files.images
    }
    chosen = [image for image in files.images if split_of[image] or not splits]
    others = [image for image in files.images if splits and not split_of[image]]
    counts.add("images in no split", "".join(others[:1]), len(others))
    texts, copies = files.pair_texts(chosen, _has_labels, splits or lists)
    counts.add(COPIES, "".join(copies[:1]), len(copies))
    read, used = [], set(filter(None, [*texts.values(), *map(files.text_of, files.images)]))
    for image, text in texts.items():
        split = split_of[image]
        size = files.size(image, counts, split)
        if size is None:
            continue
        found = AnnotatedImage(image, size, split)
        if text:
            poses = bool(content.get("kpt_shape"))
            found.boxes = _read_labels(files, text, found, names, counts, poses)
        read.append(found)
    if not used:
        raise InputError(f"{files.root}: no text file has the name of an image.")
    folders = {osp.dirname(text) for text in used}
    used_splits = {split_of_folder(text) for text in used}
    for text in files.annotations(".txt"):
        split = split_of_folder(text)
        lost = split not in used_splits  # a split whose images are all missing
        if text in used or not (lost or osp.dirname(text) in folders):
            continue
        if _has_labels(files.full(text)):
            counts.add(MISSING_IMAGES, text, split=first_split(split))
    return read, list(dict.fromkeys(names))


def _read_labels(
    files: FolderFiles,
    path: str,
    image: AnnotatedImage,
    names: list[str],
    counts: Counts,
    poses: bool,
) -> list[LabelledBox]:
    """Read a text file; coordinates are parts of the image's width and height.

    Args:
        files: of the data folder.
        path: of the text file.
        image: that it is of.
        names: of the classes.
        counts: counts what is left out.
        poses: whether the points of a pose follow each box, which would look like a polygon.
    """
    parse, split = load_globox().BoundingBox, image.split
    parsers = {5: parse.from_yolo_darknet, 6: parse.from_yolo_v5}  # 6: with a confidence
    boxes = []
    try:
        lines = read_text(files.full(path)).splitlines()
    except OSError:
        counts.add(UNREADABLE_FILES, path, split=split)
        return []
    for line in lines:
        words = line.split()[: 5 if poses else None]
        if not words:
            continue
        line = " ".join(words)
        box = parse_box(parsers.get(len(words), parse.from_yolo_seg), line, path, counts, split,
                        image_size=image.size)  # fmt: skip
        if box is None:
            continue
        try:
            index = int(float(box.label))
        except (ValueError, OverflowError):
            counts.add(UNREADABLE, path, split=split)
            continue
        highest = max(words[1:5] if len(words) < 7 else words[1:], key=float)
        if not 0 <= index < len(names):
            counts.add(UNKNOWN, f"{path}: class {index}, names 0 to {len(names) - 1}", split=split)
        elif float(highest) > _HIGHEST:
            counts.add(NOT_RELATIVE, f"{path}: {highest}", split=split)
        else:
            counts.add(POLYGONS, path, number=int(len(words) > 6))
            box.label = names[index]
            boxes.append(box)
    return boxes


def _has_labels(path: str) -> bool:
    """Whether the first line of a text file is a class and four or more coordinates."""
    try:
        lines = read_text(path).splitlines()
        words = next((line.split() for line in lines if line.strip()), [])
        return len(words) >= 5 and all(float(word) >= 0 for word in words)
    except (OSError, ValueError):
        return False


def _yaml(files: FolderFiles) -> tuple[str, dict[str, Any], InputError | None]:
    """Path and content of the uppermost YAML file with names of classes; empty if there is none.

    Files of other things may be broken, or have tags of another program. The third value is the
    error of the first one, for folders where nothing else has names.

    Raises:
        InputError: a broken file has names, so that its splits would be lost.
    """
    fault = None
    for path in sorted(files.annotations(".yaml", ".yml"), key=lambda p: (p.count("/"), p)):
        try:
            text = read_text(files.full(path))
        except OSError:  # a link to nothing
            continue
        try:
            content = parse_yaml(text, "names")
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of no calendar
            own = InputError(f"{files.full(path)} is not valid YAML: {error}")
            if re.search(r"^[\"']?names[\"']?\s*:", text, re.MULTILINE):
                raise own from None
            fault = fault or own
            continue
        if isinstance(content, Mapping) and content.get("names"):
            return path, dict(content), None
    return "", {}, fault


def _names(files: FolderFiles, path: str, content: Mapping[str, Any]) -> list[str]:
    """Names of the classes in a YAML file.

    They are a list, a dict {number: name} or {name: number}, names with commas between them, or the
    path of a list.
    """
    names = content["names"]
    if isinstance(names, str):
        listed = place_of(files, osp.dirname(path), "", names.strip())
        if listed and osp.isfile(files.full(listed)):
            return _lines(files.full(listed))
        return [name.strip() for name in names.split(",")]
    if isinstance(names, Mapping):
        try:
            if not all(str(key).strip().isdigit() for key in names):
                names = {number: name for name, number in names.items()}
            names = {int(number): name for number, name in names.items()}
        except (TypeError, ValueError):
            names = {}
        if not names or min(names) < 0 or max(names) > 100 * len(names) + 1000:
            raise InputError(
                f"{files.full(path)}: names is {content['names']}, which is neither a list nor a "
                "dict of numbers from 0 on and names."
            )
        names = [names.get(i, f"class {i}") for i in range(max(names) + 1)]
    return ["" if name is None else str(name).strip() for name in names]


def _check_names(names: Sequence[str], path: str, number: Any) -> None:
    """Raise an InputError for an empty name, or another number of names than the file states."""
    if "" in names:
        raise InputError(
            f"{path}: class {names.index('')} has an empty name: {', '.join(map(repr, names))}. "
            "Name it, or remove the line if there is no such class."
        )
    if isinstance(number, int) and number != len(names):
        raise InputError(
            f"{path}: nc is {number}, but there are {len(names)} names: {', '.join(names)}. "
            "Correct nc or names, so that each class number of the labels has its name."
        )


def _lines(path: str) -> list[str]:
    """The lines of a list of names, without empty ones at its end."""
    return [line.strip() for line in read_text(path).rstrip().splitlines()]


def _class_list(files: FolderFiles) -> tuple[str, list[str]]:
    """Path and names of the uppermost list of classes; empty if there is none."""
    paths = files.annotations(".txt", ".names", ".labels")
    paths = [p for p in paths if osp.basename(p) in _LISTS or p.endswith(".names")]
    paths = [p for p in paths if osp.isfile(files.full(p))]  # not a link to nothing
    for path in sorted(paths, key=lambda p: (p.count("/"), p)):
        return path, _lines(files.full(path))
    return "", []


def _split_folders(
    files: FolderFiles, path: str, content: Mapping[str, Any], counts: Counts
) -> dict[str, str]:
    """{folder or image: split}, from a YAML file; empty if it names no splits.

    Exporters name test, and val, also where there is none.
    """
    found: dict[str, str] = {}
    others: list[tuple[str | None, str, str]] = []  # images that may be in another folder
    for split in SPLITS:
        value = content.get(split) or (content.get("valid") if split == "val" else None)
        for part in value if isinstance(value, list) else [value]:
            if not part:
                continue
            place = place_of(files, osp.dirname(path), str(content.get("path") or ""), str(part))
            if place is None and (split == "test" or (split == "val" and found)):
                counts.add(NO_SPLIT, f"{path}: {split} is {part}")
                continue
            if place is None:
                raise InputError(
                    f"{files.full(path)}: {split} is {part}, which is not below {files.root}. "
                    "Correct the path."
                )
            if place.endswith(".txt"):
                for line in read_text(files.full(place)).splitlines():
                    image, elsewhere = files.find_image(line.strip(), place)
                    if image and not elsewhere:
                        found.setdefault(image, split)
                    elif line.strip():
                        others.append((image, split, f"{place}: {line.strip()}"))
            else:
                found.setdefault(place, split)
    for image, split, where in others:
        if image is None or _split_of(image, found):  # it is another image
            counts.add(MISSING_IMAGES, where, split=split)
        else:
            found[image] = split
    return found


def _split_lists(files: FolderFiles, counts: Counts) -> dict[str, str]:
    """{image: split}, from Darknet's and CVAT's ``train.txt`` and ``valid.txt``."""
    found: dict[str, str] = {}
    missing = []
    for path in files.annotations(".txt"):
        split = first_split(split_of_words([osp.splitext(osp.basename(path))[0]]))
        if split is None or not osp.isfile(files.full(path)):
            continue
        lines = [line.strip() for line in read_text(files.full(path)).splitlines()]
        named = [line for line in lines if line.lower().endswith(IMAGE_SUFFIXES)]
        images = {line: files.image_named(line, path, split) for line in named}
        if not any(images.values()):
            continue  # the labels of an image of this name, or notes
        for line, image in images.items():
            if image:
                found.setdefault(image, split)
            else:
                missing.append((f"{path}: {line}", split))
    for where, split in missing:
        counts.add(MISSING_IMAGES, where, split=split)
    return found


def _split_of(image: str, splits: Mapping[str, str]) -> str | None:
    """The split of an image: its own, or that of the innermost folder that has one."""
    place = image
    while place and place not in splits:
        place = osp.dirname(place)
    return splits.get(place)  # "" is the data folder itself
