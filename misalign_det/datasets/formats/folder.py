"""Read a folder of annotated images in any of the formats."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.text import shorten
from .coco import ROBOFLOW, coco_files, is_coco, read_coco
from .cvat_labelme import is_cvat, is_labelme, read_cvat, read_labelme
from .files import MISSING_IMAGES, FolderFiles
from .losses import check_losses, likely_cause, other_formats
from .records import (
    IN_NO_SPLIT,
    SPLITS,
    AnnotatedImage,
    CocoSplit,
    Counts,
    first_split,
    split_of_folder,
)
from .standard import from_images, is_standard, standardise, used_categories
from .table import is_table, read_table
from .voc import is_voc, read_voc
from .yolo import has_class_names, is_yolo, read_yolo

_Reader = Callable[..., tuple[list[AnnotatedImage], list[str] | None]]  # (files, counts)
# In the order in which they are tried. COCO is read by read_coco.
_READERS: dict[str, tuple[str, Callable[[FolderFiles], bool], _Reader]] = {
    "voc": ("VOC", is_voc, read_voc),
    "cvat": ("CVAT", is_cvat, read_cvat),
    "yolo": ("YOLO", is_yolo, read_yolo),
    "labelme": ("LabelMe", is_labelme, read_labelme),
    "csv": ("CSV", is_table, read_table),
}
_WITH_LISTS = ("voc", "yolo")  # leave out what is in none of the lists, unless it is asked for
FORMATS = ("coco", "roboflow", *_READERS)


@dataclass
class DataFolder:
    """The annotated images of a folder.

    Attributes:
        format: its name, for messages.
        classes: in the order of the labels.
        splits: {``'train'``, ``'val'`` or ``'test'``: images}, or all images as ``''``.
        counts: what was left out.
        ordered: whether the format gives the classes an order; else they are sorted.
        warnings: what is perhaps wrong; see :func:`~.losses.check_losses`.
    """

    format: str
    classes: list[str]
    splits: dict[str, CocoSplit]
    counts: Counts
    ordered: bool = True
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        noun = "class" if len(self.classes) == 1 else "classes"
        names = shorten(self.classes, 10)
        images = ", ".join(f"{len(split)} {name}".rstrip() for name, split in self.splits.items())
        return f"{self.format}, {len(self.classes)} {noun} ({names}), {images} images"


def recognise(files: FolderFiles) -> str:
    """The format of a folder, one of :data:`FORMATS`.

    Args:
        files: of the folder.

    Raises:
        InputError: it is in none of them.
    """
    if is_coco(files):
        names = coco_files(files).values()
        return "roboflow" if any(name.endswith(ROBOFLOW) for name in names) else "coco"
    for name, (_, matches, _) in _READERS.items():
        if matches(files):
            return name
    if is_coco(files, damaged=True):  # for the error that says what it lacks
        return "coco"
    if has_class_names(files):  # for the error that says what is missing
        return "yolo"
    raise InputError(
        f"{files.root} has {len(files.images)} images, but no annotations in COCO, Pascal VOC, "
        "YOLO, CVAT, LabelMe or CSV format. tools/README.md shows the layouts."
    )


def read_folder(
    root: str,
    kind: str = "auto",
    classes: Sequence[str] | None = None,
    prefer: Sequence[str] | None = None,
    files: FolderFiles | None = None,
    open_images: bool = False,
    whole: bool = False,
) -> DataFolder:
    """Read a folder.

    Args:
        root: the folder.
        kind: one of :data:`FORMATS`, or ``'auto'``: the first whose annotations are there.
            ``'roboflow'`` is any format that Roboflow exports.
        classes: names of the classes in the wanted order, which the annotations may not exceed.
            Default: the order of the format, or sorted where it has none.
        prefer: an order that is taken if these are the folder's classes.
        files: of the folder, if they are known.
        open_images: open the images of COCO files too, to find unreadable ones and their sizes.
            Small folders are opened anyway, and those of other formats.
        whole: keep annotated images that are in no split as ``''``, where others are in one.

    Returns:
        The splits. COCO files that can be used as they are keep their ``file``.

    Raises:
        InputError: the folder cannot be read, has no objects, has other classes or one without a
            name, or most of a split cannot be used; the message says what to do.

    Example::

        data = read_folder('data/cells')
        print(data)                         # YOLO, 2 classes (RBC, WBC), 80 train, 20 val images
        data.splits['val'].content['annotations'][0]['bbox']      # (x, y, w, h) in pixels
    """
    files = files or FolderFiles(root)
    found = recognise(files) if kind in ("auto", "roboflow") else kind
    counts = Counts()
    if found in ("coco", "roboflow"):
        title = "Roboflow COCO" if found == "roboflow" else "COCO"
        data = _read_coco(files, title, classes, prefer, counts, open_images)
        if kind != found:
            data.warnings += other_formats(files, found, data.splits, _READERS)
        return data
    title, _, reader = _READERS[found]
    options = {"whole": whole} if found in _WITH_LISTS else {}
    images, names = reader(files, counts, **options)
    images = _without_other_images(images, counts)
    images, warnings = _listed_once(files.root, images, counts)
    if not whole:
        images = _in_splits(files.root, images, counts, warnings)
    _check_labels(files.root, images)
    labels = sorted({box.label for image in images for box in image.boxes})
    if not labels:
        left_out = f" Left out: {counts}. {likely_cause(counts)}" if str(counts) else ""
        raise InputError(f"{files.root}: no {title} annotation has a usable box.{left_out}")
    order = _order(files.root, names or labels, labels, classes, prefer)
    by_split = {image.split or "" for image in images}
    splits: dict[str, CocoSplit] = {}
    for split in [name for name in (*SPLITS, "") if name in by_split]:
        chosen = [image for image in images if (image.split or "") == split]
        splits[split] = CocoSplit(from_images(chosen, order, counts), Path(files.root))
    warnings += check_losses(files.root, _numbers(splits), counts)
    if kind != found:
        warnings += other_formats(files, found, splits, _READERS)
    return DataFolder(title, order, splits, counts, names is not None, warnings)


def _in_splits(
    root: str, images: list[AnnotatedImage], counts: Counts, warnings: list[str]
) -> list[AnnotatedImage]:
    """The images of a split; all, if none is in one.

    Args:
        root: the data folder, for messages.
        images: of the folder.
        counts: counts the others; those that were not read are counted already.
        warnings: extended in place.
    """
    others = [image for image in images if not image.split]
    if len(others) == len(images):
        return images
    counts.add(IN_NO_SPLIT, "".join(image.path for image in others[:1]), len(others))
    kept = [image for image in images if image.split]
    number = counts.number.get(IN_NO_SPLIT, 0)
    if number:
        splits = [split for split in SPLITS if any(image.split == split for image in kept)]
        warnings.append(
            f"{root}: {number} of {len({image.path for image in kept}) + number} images are in no "
            f"split and are left out, such as {counts.first[IN_NO_SPLIT]}; others are in "
            f"{' and '.join(splits)}."
        )
    return kept


def _without_other_images(images: Sequence[AnnotatedImage], counts: Counts) -> list[AnnotatedImage]:
    """The images without those that were found in another folder and are named there, too.

    The boxes are those of an image that is missing, then, whose name is the same.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for image in images:
        places[image.path].add(image.elsewhere)
    kept = []
    for image in images:
        if image.elsewhere and len(places[image.path]) > 1:
            split = first_split(split_of_folder(image.elsewhere), image.split)
            counts.add(MISSING_IMAGES, image.elsewhere, split=split)
        else:
            kept.append(image)
    return kept


def _listed_once(
    root: str, images: Sequence[AnnotatedImage], counts: Counts
) -> tuple[list[AnnotatedImage], list[str]]:
    """The images, those of the same file and split as one with the boxes of all, each once.

    Args:
        root: the data folder, for messages.
        images: of all annotation files; their boxes are changed in place.
        counts: counts images and boxes that are listed twice.

    Returns:
        The images; and a warning, if annotation files have different boxes of the same image.
    """
    first: dict[tuple[str, str | None], AnnotatedImage] = {}
    differ: dict[str, str] = {}
    for image in images:
        own = {(box.label, box.bbox, box.iscrowd): box for box in image.boxes}
        counts.add("boxes listed twice", image.path, len(image.boxes) - len(own))
        image.boxes = list(own.values())
        known = first.setdefault((image.path, image.split), image)
        if known is not image:
            there = {(box.label, box.bbox, box.iscrowd) for box in known.boxes}
            new = [box for key, box in own.items() if key not in there]
            if known.source != image.source and there != set(own):
                differ.setdefault(image.path, f"{known.source} and {image.source}")
            counts.add("images listed twice", image.path)
            counts.add("boxes listed twice", image.path, len(own) - len(new))
            known.boxes += new
    path = next(iter(differ), "")
    warning = (
        f"{root}: annotation files have different boxes of {len(differ)} images, such as "
        f"{differ.get(path)} of {path}. The images have the boxes of all files. Keep one file, if "
        "they are versions of it, or check which image belongs to which."
    )
    return list(first.values()), [warning] if differ else []


def _check_labels(root: str, images: Sequence[AnnotatedImage]) -> None:
    """Raise an InputError for boxes whose class is an empty name."""
    nameless = [image.path for image in images for box in image.boxes if not box.label]
    if nameless:
        raise InputError(
            f"{root}: {len(nameless)} boxes have an empty class name, the first in the annotations "
            f"of {nameless[0]}. Name their class, or remove them."
        )


def _numbers(splits: Mapping[str, CocoSplit]) -> dict[str, tuple[int, int]]:
    """{split: numbers of images and boxes}."""
    return {name: (len(split), len(split.content["annotations"])) for name, split in splits.items()}


def _read_coco(
    files: FolderFiles,
    title: str,
    classes: Sequence[str] | None,
    prefer: Sequence[str] | None,
    counts: Counts,
    open_images: bool,
) -> DataFolder:
    read = read_coco(files, counts, open_images)
    if not read:
        raise InputError(f"{files.root}: there is no COCO file in it.")
    names = used_categories([split.content for split in read.values()])
    order = _order(files.root, names, names, classes, prefer)
    splits = {name: read[name] for name in (*SPLITS, "") if name in read}
    paths = coco_files(files)
    for name, split in splits.items():
        if not is_standard(split.content, order):
            split.content = standardise(split.content, order, counts, paths[name], name)
            split.file = None
    warnings = check_losses(files.root, _numbers(splits), counts)
    return DataFolder(title, order, splits, counts, warnings=warnings)


def _order(
    root: str,
    names: Sequence[str],
    used: Sequence[str],
    wanted: Sequence[str] | None,
    prefer: Sequence[str] | None,
) -> list[str]:
    """The classes in their order.

    Raises:
        InputError: boxes have classes that are not wanted.
    """
    if wanted is None:
        return list(prefer) if prefer and sorted(prefer) == sorted(names) else list(names)
    others: list[Any] = [name for name in used if name not in wanted]
    if others:
        raise InputError(
            f"{root}: the annotations name {shorten(map(repr, others))}, which the detector does "
            f"not know. Its classes: {shorten(wanted, 20)}."
        )
    return list(wanted)
