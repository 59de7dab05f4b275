"""What the readers of all formats return and leave out, and what names of folders say."""

import os.path as osp
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
_SPLIT = re.compile(r"(trainval|train|training|val|valid|validation|test|testing)(\d{4})?")
# Words in names of folders: of images, of annotations, and of pictures that are made of images.
_OF_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "frames", "photos"}
_OF_LABELS = {"labels", "label", "annotations", "annotation", "anns", "ann", "xmls", "xml"}
_OF_PICTURES = {"masks", "mask", "trimaps", "trimap", "segmentations", "segmentation",
                "segmentationclass", "segmentationobject", "predictions", "thumbnails",
                "thumbs"}  # fmt: skip
COPIES = "images of folders without labels that have the names of labelled images elsewhere"
MERGED = "classes of the same name, which were merged"
NOT_IN_SPLIT = "boxes that only a CSV file without a split has, of images that are in a split"
UNNAMED = "images that no CSV file names, beside others that one does"
IN_NO_SPLIT = "images in no split"
SHARED_TEXT = "images that share their text file with another image beside them"
OTHER_ORDER = "lists of classes in another order than the first, each of the labels nearest to it"
NO_SPLIT = "folders and lists of a YAML file that are not there"
NOT_READ = "COCO files that are not read, since the names of others have splits"


@dataclass
class LabelledBox:
    """A box of an image.

    Attributes:
        label: name of its class.
        bbox: (x1, y1, x2, y2) in pixels; the left and upper border of the image is at 0.
        iscrowd: whether training and evaluation ignore it, as COCO's crowds and VOC's difficult
            objects.
        attributes: further keys of its COCO annotation.
    """

    label: str
    bbox: tuple[float, float, float, float]
    iscrowd: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class AnnotatedImage:
    """An image whose file can be opened.

    Attributes:
        path: relative to the data folder.
        size: (width, height) of the file as it is loaded.
        split: ``'train'``, ``'val'``, ``'test'``, or None if the folder names none.
        boxes: of the image.
        attributes: further keys of its COCO image.
        source: the annotation file.
        elsewhere: the path that the annotation gives, if the image was found in another folder.
    """

    path: str
    size: tuple[int, int]
    split: str | None = None
    boxes: list[LabelledBox] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    elsewhere: str = ""


@dataclass
class CocoSplit:
    """The images of one split.

    Attributes:
        content: COCO dictionary.
        images: folder that each ``file_name`` is relative to.
        file: the COCO file that has this content; None if no file has it yet.
    """

    content: dict[str, Any]
    images: Path
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.content["images"])


class Counts:
    """What is left out or changed, by kind, each with the first place where it was found.

    Attributes:
        number: {kind: how often}.
        first: {kind: the first place}.

    Example:
        >>> counts = Counts()
        >>> counts.add('boxes without area', 'a.xml')
        >>> counts.add('boxes without area', 'b.xml', split='val')
        >>> str(counts), str(counts.of_split('val'))
        ('2 boxes without area (first: a.xml)', '1 boxes without area (first: b.xml)')
    """

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self._splits: dict[str, Counts] = {}

    def add(self, kind: str, where: str = "", number: int = 1, split: str | None = None) -> None:
        """Count one thing, or several.

        Args:
            kind: in the plural, such as ``'boxes without area'``.
            where: file in which it was found.
            number: how many.
            split: that it belongs to, if it is known.
        """
        if number:
            for counts in (self, self.of_split(split)):
                counts.number[kind] = counts.number.get(kind, 0) + number
                counts.first.setdefault(kind, where)

    def of_split(self, split: str | None) -> "Counts":
        """What was counted for one split; for None or ``''``, what belongs to no known one."""
        return self._splits.setdefault(split or "", Counts())

    def only(self, kinds: Iterable[str]) -> "Counts":
        """What was counted of some kinds."""
        chosen = Counts()
        for kind in kinds:
            chosen.add(kind, self.first.get(kind, ""), self.number.get(kind, 0))
        return chosen

    def __str__(self) -> str:
        texts = []
        for kind, number in self.number.items():
            first = f" (first: {self.first[kind]})" if self.first[kind] else ""
            texts.append(f"{number} {kind}{first}")
        return "; ".join(texts)


def split_of_folder(path: str) -> str | None:
    """The split that a folder on a path is named after, the innermost first.

    Args:
        path: of a file; its own name is not read.

    Returns:
        As :func:`split_of_words`. A folder that names both train and val is of ``'trainval'``, one
        that names other splits together is of none.

    Example:
        >>> split_of_folder('valid/images/1.jpg'), split_of_folder('train_images/cam 1/1.jpg')
        ('val', 'train')
    """
    return _split_of_folders(osp.dirname(path))


@lru_cache(maxsize=2**16)
def _split_of_folders(folders: str) -> str | None:
    for part in reversed(folders.split("/")):
        found = {split_of_words([word]) for word in folder_words(part)} - {None}
        if found == {"train", "val"}:
            return "trainval"
        if len(found) == 1:
            return found.pop()
    return None


def first_split(*found: str | None) -> str | None:
    """The first split that is not None; images that are for training and validation are train's.

    Args:
        *found: results of :func:`split_of_folder` and :func:`split_of_words`.

    Example:
        >>> first_split(None, 'trainval', 'test')
        'train'
    """
    split = next((split for split in found if split), None)
    return "train" if split == "trainval" else split


def split_of_words(words: Iterable[str]) -> str | None:
    """The first word that is a split's name: ``'train'``, ``'val'``, ``'test'``, ``'trainval'``."""
    for word in words:
        match = _SPLIT.fullmatch(word.lower())
        if match:
            short = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
            return short.get(match[1], match[1])
    return None


def splits_agree(split: str | None, other: str | None) -> bool:
    """Whether files of two splits, or of none, may belong together."""
    return None in (split, other) or split == other or {split, other} in (
        {"trainval", "train"}, {"trainval", "val"})  # fmt: skip


def folder_words(folders: str) -> list[str]:
    """The words in the names of folders, in lower case."""
    return [word for word in re.split(r"[-_. /]+", folders.lower()) if word]


def common_tail(folders: Sequence[str], path: str) -> int:
    """How many folders directly above the file the path has in common with others."""
    own = path.split("/")[:-1]
    return len(osp.commonprefix([own[::-1], list(folders)[::-1]]))


def nearest(
    paths: Sequence[str], near: str, images: bool = True, of_stem: bool = False
) -> list[str]:
    """The paths whose folders are most similar to that of another file.

    Args:
        paths: of images or of annotation files.
        near: an annotation file, or an image.
        images: whether the paths are of images.
        of_stem: only the stem says that they belong together: those of other splits do not.

    Returns:
        All paths that are alike.
    """
    folders = [path.rpartition("/")[0] for path in paths]  # a fifth of the time of osp.dirname
    chosen = _nearest_folders(tuple(folders), osp.dirname(near), images, of_stem)
    return [path for path, folder in zip(paths, folders) if folder in chosen]


@lru_cache(maxsize=2**12)
def _nearest_folders(
    folders: tuple[str, ...], near: str, images: bool, of_stem: bool
) -> frozenset[str]:
    """Those of some folders that are most similar to another one.

    The files of a folder often have the same names as those of others: all but the first find the
    answer here.
    """
    keys = {}
    for folder in set(folders):
        key = _likeness(folder, near) if images else _likeness(near, folder)
        if key[1] or not of_stem:
            keys[folder] = key
    most = max(keys.values(), default=())
    return frozenset(folder for folder, key in keys.items() if key == most)


@lru_cache(maxsize=2**16)
def _likeness(images: str, annotations: str) -> tuple[int, ...]:
    """How similar a folder of images and one of annotations are; of tuples, the greater one is.

    First count one folder for both or YOLO's pair ``images`` and ``labels``, then that the splits
    agree, then names in common from either end, then words in common.
    """
    parts, others = images.split("/"), annotations.split("/")
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        pair = [*parts[:last], "labels", *parts[last + 1 :]] == others
    else:
        pair = False
    splits = _split_of_folders(images), _split_of_folders(annotations)
    words, other_words = set(folder_words(images)), set(folder_words(annotations))
    head, tail = osp.commonprefix([parts, others]), osp.commonprefix([parts[::-1], others[::-1]])
    return (
        2 if pair else int(parts == others),
        int(splits_agree(*splits)) + int(splits_agree(*splits) and None not in splits),
        int(not words & _OF_PICTURES),
        len(head) + len(tail),
        len(words & other_words),
        -abs(len(parts) - len(others)),
        int(bool(words & _OF_IMAGES)) + int(bool(other_words & _OF_LABELS)),
        int(not _OF_IMAGES.isdisjoint(parts)) + int(not _OF_LABELS.isdisjoint(others)),
    )
