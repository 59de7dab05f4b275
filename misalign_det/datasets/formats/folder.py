"""Read a folder of annotated images in any of the formats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.text import shorten
from .coco import ROBOFLOW, coco_files, is_coco, read_coco, used_categories
from .cvat_labelme import is_cvat, is_labelme, read_cvat, read_labelme
from .files import FolderFiles
from .records import SPLITS, AnnotatedImage, CocoSplit, Counts
from .standard import from_images, is_standard, standardise
from .table import is_table, read_table
from .voc import is_voc, read_voc
from .yolo import is_yolo, read_yolo

_Reader = Callable[[FolderFiles, Counts], tuple[list[AnnotatedImage], list[str] | None]]
# In the order in which they are tried. COCO is read by read_coco.
_READERS: dict[str, tuple[str, Callable[[FolderFiles], bool], _Reader]] = {
    "voc": ("VOC", is_voc, read_voc),
    "cvat": ("CVAT", is_cvat, read_cvat),
    "yolo": ("YOLO", is_yolo, read_yolo),
    "labelme": ("LabelMe", is_labelme, read_labelme),
    "csv": ("CSV", is_table, read_table),
}
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
    """

    format: str
    classes: list[str]
    splits: dict[str, CocoSplit]
    counts: Counts
    ordered: bool = True

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

    Returns:
        The splits. COCO files that can be used as they are keep their ``file``.

    Raises:
        InputError: the folder cannot be read, has no objects, or has other classes; the message
            says what to do.

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
        return _read_coco(files, title, classes, prefer, counts)
    title, _, reader = _READERS[found]
    images, names = reader(files, counts)
    labels = sorted({box.label for image in images for box in image.boxes})
    if not labels:
        left_out = f" Left out: {counts}." if str(counts) else ""
        raise InputError(f"{files.root}: no {title} annotation has a usable box.{left_out}")
    order = _order(files.root, names or labels, labels, classes, prefer)
    by_split = {image.split or "" for image in images}
    splits: dict[str, CocoSplit] = {}
    for split in [name for name in (*SPLITS, "") if name in by_split]:
        chosen = [image for image in images if (image.split or "") == split]
        if not split and len(by_split) > 1:
            counts.add("images in no split", chosen[0].path, len(chosen))
            continue
        splits[split] = CocoSplit(from_images(chosen, order, counts), Path(files.root))
    return DataFolder(title, order, splits, counts, ordered=names is not None)


def _read_coco(
    files: FolderFiles,
    title: str,
    classes: Sequence[str] | None,
    prefer: Sequence[str] | None,
    counts: Counts,
) -> DataFolder:
    read = read_coco(files)
    if not read:
        raise InputError(f"{files.root}: there is no COCO file in it.")
    names = used_categories([split.content for split in read.values()])
    order = _order(files.root, names, names, classes, prefer)
    splits = {name: read[name] for name in (*SPLITS, "") if name in read}
    for split in splits.values():
        if not is_standard(split.content, order):
            split.content, split.file = standardise(split.content, order, counts), None
    return DataFolder(title, order, splits, counts)


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
