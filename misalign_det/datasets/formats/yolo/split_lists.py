"""Which images are in which splits: paths in YAML files, and Darknet's lists."""

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import InputError
from ..files import IMAGE_SUFFIXES, MISSING_IMAGES, FolderFiles
from ..records import NO_SPLIT, SPLITS, Counts, first_split, split_of_words
from ..text import read_text


def split_folders(
    files: FolderFiles, path: str, content: Mapping[str, Any], counts: Counts
) -> dict[str, list[str]]:
    """{folder or image: its splits}, from a YAML file; empty if it names no splits.

    Exporters name test, and val, also where there is none.

    Args:
        files: of the data folder.
        path: of the YAML file.
        content: of the YAML file.
        counts: counts what is not there.

    Raises:
        InputError: it names a folder or list that is not there.
    """
    found: dict[str, list[str]] = {}
    others: list[tuple[str | None, str, str, str]] = []  # images that may be in another folder
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
                for line in filter(None, map(str.strip, _lines(files, place))):
                    image, elsewhere = files.find_image(line, place)
                    if image and not elsewhere:
                        _add(found, image, split)
                    else:
                        others.append((image, split, line, f"{place}: {line}"))
            else:
                _add(found, place, split)
    names: dict[str, str] = {}
    for image, split, line, where in others:
        if image is None or (splits_of(image, found) and names.get(image) != line):
            counts.add(MISSING_IMAGES, where, split=split)  # or it is another image
        else:
            names[image] = line
            _add(found, image, split)
    return found


def split_lists(files: FolderFiles, counts: Counts) -> dict[str, list[str]]:
    """{image: its splits}, from Darknet's and CVAT's ``train.txt`` and ``valid.txt``.

    Args:
        files: of the data folder.
        counts: counts the images that are not there.
    """
    found: dict[str, list[str]] = {}
    lists: list[tuple[str, str, dict[str, str | None]]] = []  # path, split, images by their line
    for path in files.annotations(".txt"):
        name = split_of_words([osp.splitext(osp.basename(path))[0]])
        if name is None or not osp.isfile(files.full(path)):
            continue
        named = [line for line in _lines(files, path) if line.lower().endswith(IMAGE_SUFFIXES)]
        images = {line: files.image_named(line, path, first_split(name)) for line in named}
        if any(images.values()):  # else the labels of an image of this name, or notes
            lists.append((path, name, images))
    has_train = any(name == "train" for _, name, _ in lists)
    for path, name, images in lists:
        if name == "trainval" and has_train:
            continue
        split = first_split(name) or ""
        for line, image in images.items():
            if image:
                _add(found, image, split)
            else:
                counts.add(MISSING_IMAGES, f"{path}: {line}", split=split)
    return found


def splits_of(image: str, splits: Mapping[str, Sequence[str]]) -> list[str]:
    """The splits of an image: those of lists that name it, else of the innermost folder with one.

    Validation and test lose no image of their folder to a list.

    Args:
        image: relative path.
        splits: result of :func:`split_folders`.
    """
    own = list(splits.get(image, ()))
    place = osp.dirname(image)
    while place and place not in splits:
        place = osp.dirname(place)
    of_folder = splits.get(place, ())  # "" is the data folder itself
    if own:
        of_folder = [split for split in of_folder if split not in (*own, "train")]
    return [*own, *of_folder]


def _add(splits: dict[str, list[str]], place: str, split: str) -> None:
    own = splits.setdefault(place, [])
    if split not in own:
        own.append(split)


def _lines(files: FolderFiles, path: str) -> list[str]:
    return [line.strip() for line in read_text(files.full(path)).splitlines()]


def place_of(files: FolderFiles, folder: str, base: str, part: str) -> str | None:
    """A path that a file gives, relative to the data folder.

    The file may come from another machine, or lie elsewhere than its exporter thought. So ``..``
    is left out, and of ``base`` or an absolute path the longest ending that is there counts.

    Args:
        files: of the data folder.
        folder: of the file, relative to the data folder.
        base: folder that the file gives for its paths; may be empty.
        part: the path.

    Returns:
        Relative path; None if there is no such file or folder.
    """
    absolute = part.startswith("/") or part[1:2] == ":"
    head_words, words = _names_on(base), _names_on(part)
    last = len(words) - 1 if absolute else len(head_words)
    words = words if absolute else [*head_words, *words]
    for start in range(last + 1):
        for head in (folder, ""):
            place = "/".join([*head.split("/"), *words[start:]]).lstrip("/")
            if osp.exists(files.full(place)):
                return place
    return None


def _names_on(path: str) -> list[str]:
    return [w for w in path.replace("\\", "/").split("/") if w not in ("", ".", "..")]
