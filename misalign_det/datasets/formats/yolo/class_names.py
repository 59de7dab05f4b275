"""Names of YOLO's classes: YAML files and lists, and which of them is of which labels."""

import os.path as osp
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from ....errors import InputError
from ..files import FolderFiles
from ..records import MERGED, OTHER_ORDER, Counts, nearest
from ..text import parse_yaml, read_text
from .split_lists import place_of

_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_FALLBACK = "predefined_classes.txt"  # with which LabelImg begins; classes.txt is what it wrote


@dataclass(frozen=True)
class NameList:
    """A file with names of classes.

    Attributes:
        path: of the file.
        names: of the classes, by number.
        content: of a YAML file; empty for a list.
    """

    path: str
    names: list[str]
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of the file, with a slash at its end; empty for the data folder."""
        return f"{osp.dirname(self.path)}/".lstrip("/")

    def contradiction(self, other: "NameList") -> int | None:
        """The first class number that has other names in two lists; they may differ in length."""
        pairs = enumerate(zip(self.names, other.names))
        return next((number for number, (own, others) in pairs if own != others), None)


class ClassLists:
    """All files with names of classes; LabelImg and Roboflow write one per folder.

    Args:
        files: of the data folder.

    Attributes:
        all: YAML files before lists, the uppermost first.
        fault: the error of a broken YAML file, for folders where nothing else has names.

    Raises:
        InputError: a broken YAML file has names, so that its splits would be lost.
    """

    def __init__(self, files: FolderFiles) -> None:
        self._files = files
        self._chosen: dict[tuple[str, str], NameList] = {}
        self.all, self.fault = _yaml_files(files)
        paths = files.annotations(".txt", ".names", ".labels")
        paths = [path for path in paths if osp.isfile(files.full(path))]  # not a link to nothing
        lists = [p for p in paths if osp.basename(p) in _LISTS or p.endswith(".names")]
        self._add(lists)
        if not self.all:
            self._add([path for path in paths if osp.basename(path) == _FALLBACK])

    def _add(self, paths: Sequence[str]) -> None:
        for path in sorted(paths, key=_uppermost):
            names = _lines(self._files.full(path))
            if names:
                self.all.append(NameList(path, names))

    def of(self, text: str, image: str) -> NameList:
        """The list of a text file's classes.

        It is a YAML file in a folder above the labels or the image, else the innermost list there,
        else the list in the most similar folder.

        Args:
            text: the labels.
            image: that they are of.

        Raises:
            InputError: another list that is as near has other names.
        """
        key = (osp.dirname(text), osp.dirname(image))
        if key not in self._chosen:
            self._chosen[key] = self._choose(text, image)
        return self._chosen[key]

    def _choose(self, text: str, image: str) -> NameList:
        above = [one for one in self.all if text.startswith(one.folder)
                 or image.startswith(one.folder)]  # fmt: skip
        level = {one.path: one.path.count("/") for one in above}
        found = sorted(above, key=lambda one: -level[one.path])
        if not found:
            near = nearest([one.path for one in self.all], image, images=False)
            found = [one for one in self.all if one.path in near]
        chosen = next((one for one in found if one.content), found[0])
        for other in found:
            # data.yaml replaces classes.txt beside it, but is wrong for labels with another list.
            beside = other.folder == chosen.folder and bool(other.content) != bool(chosen.content)
            number = other.contradiction(chosen)
            as_near = level.get(other.path, 0) >= level.get(chosen.path, 0)
            if number is not None and as_near and not beside:
                raise InputError(
                    f"{self._files.full(chosen.path)} and {other.path} name class {number} "
                    f"{chosen.names[number]!r} and {other.names[number]!r}. Remove the one that is "
                    f"not of the labels, such as {text}."
                )
        if not chosen.content:  # LabelImg adds names at the end of one list, not of the others
            longer = [one for one in found if one.contradiction(chosen) is None]
            chosen = max([chosen, *longer], key=lambda one: len(one.names))
        return chosen

    def names_of(self, used: Sequence[NameList], counts: Counts) -> list[str]:
        """The names of all classes, in the order of the first list.

        Args:
            used: results of :meth:`of`.
            counts: counts lists in another order, names that are there twice, and files whose
                encoding is a guess.

        Raises:
            InputError: a name is empty, or a file states another number of names than it has.
        """
        paths = {one.path for one in used}
        lists = [one for one in self.all if one.path in paths]
        for one in lists:
            full = self._files.full(one.path)
            read_text(full, counts, one.path)  # counted if its encoding is a guess
            _check_names(one.names, full, one.content.get("nc"))
            for i, name in enumerate(one.names):
                if name in one.names[:i]:
                    where = f"{one.path}: {name!r} is class {one.names.index(name)} and {i}"
                    counts.add(MERGED, where)
            if one.contradiction(lists[0]) is not None:
                counts.add(OTHER_ORDER, one.path)
        return list(dict.fromkeys(name for one in lists for name in one.names))


def has_class_names(files: FolderFiles) -> bool:
    """Whether there are names of classes, which other tools than those of YOLO write too."""
    return bool(ClassLists(files).all)


def _uppermost(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _yaml_files(files: FolderFiles) -> tuple[list[NameList], InputError | None]:
    """The YAML files with names of classes; and the error of the first broken one without names.

    Files of other things may be broken, or have tags of another program.
    """
    found: list[NameList] = []
    fault = None
    for path in sorted(files.annotations(".yaml", ".yml"), key=_uppermost):
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
            try:
                found.append(NameList(path, _names(files, path, content), dict(content)))
            except InputError:
                if not found:
                    raise  # else they are names of something else
    return found, fault


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
