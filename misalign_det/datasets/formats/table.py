"""Boxes in CSV files: one row per box, with a header."""

import csv
import os.path as osp
import re
from collections.abc import Mapping, Sequence

from ...errors import InputError
from .boxes import load_globox, parse_box
from .files import FolderFiles, split_of_folder, split_of_words
from .records import AnnotatedImage, Counts

# Names that a column may have, in lower case without "_", "-" and spaces.
_COLUMNS = {
    "image": ("filename", "imageid", "image", "imagepath", "path", "file", "imagename"),
    "label": ("class", "labelname", "label", "category", "classname", "name"),
    "x1": ("xmin", "x1", "left"),
    "y1": ("ymin", "y1", "top"),
    "x2": ("xmax", "x2", "right"),
    "y2": ("ymax", "y2", "bottom"),
    "split": ("split", "set", "subset"),
}
_CORNERS = ("x1", "y1", "x2", "y2")
_OWN_KEYS = {"id", "file_name", "width", "height"}


def is_table(files: FolderFiles) -> bool:
    """Whether a CSV file has the columns of a box."""
    return any(_columns(files, path) for path in files.annotations(".csv"))


def read_table(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read CSV files with a header.

    Coordinates are pixels or, if none of a file is above 1, parts of the image. A row without a
    class and coordinates is an image without objects. Other columns become keys of the image.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and None, since the format has no list of classes.

    Raises:
        InputError: no file has the columns of a box.
    """
    read: dict[str, AnnotatedImage] = {}
    found = False
    for path in files.annotations(".csv"):
        columns = _columns(files, path)
        if columns:
            found = True
            _read_file(files, path, columns, read, counts)
    if not found:
        raise InputError(
            f"{files.root}: no CSV file has a header with the columns of a box: filename, class, "
            "xmin, ymin, xmax, ymax."
        )
    return list(read.values()), None


def _columns(files: FolderFiles, path: str) -> dict[str, str]:
    """{meaning: name of the column}; empty if the table is of something else."""
    try:
        with open(files.full(path), newline="", encoding="utf-8-sig") as opened:
            header = next(csv.reader(opened), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    plain = {re.sub(r"[-_ ]", "", name.lower()): name for name in header}
    columns = {
        meaning: next((plain[name] for name in names if name in plain), "")
        for meaning, names in _COLUMNS.items()
    }
    complete = all(columns[meaning] for meaning in ("image", "label", *_CORNERS))
    return columns if complete else {}


def _read_file(
    files: FolderFiles,
    path: str,
    columns: Mapping[str, str],
    read: dict[str, AnnotatedImage],
    counts: Counts,
) -> None:
    """Add the boxes of a CSV file to the images."""
    with open(files.full(path), newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    relative = _are_relative(rows, [columns[corner] for corner in _CORNERS])
    missing = set()
    for row in rows:
        name = (row[columns["image"]] or "").strip()
        words = [row.get(columns["split"]) or "", osp.splitext(osp.basename(path))[0]]
        of_row = split_of_words(words)
        image = files.image_named(name, path, of_row) if name else None
        if image is None:
            if name not in missing:
                counts.add("missing images", name or path)
            missing.add(name)
            continue
        size = files.size(image, counts)
        if size is None:
            continue
        if image not in read:
            split = of_row or split_of_folder(image) or split_of_folder(path)
            others = set(row) - set(columns.values()) - _OWN_KEYS - {None}
            read[image] = AnnotatedImage(image, size, split, [], {key: row[key] for key in others})
        label, texts = row[columns["label"]], [row[columns[corner]] for corner in _CORNERS]
        if not label and not any(texts):
            continue
        line = " ".join(["0", *(text or "?" for text in texts)])
        box = parse_box(load_globox().BoundingBox.from_txt, line, path, counts,
                        relative=relative, image_size=size)  # fmt: skip
        if box:
            box.label = (label or "").strip()
            read[image].boxes.append(box)


def _are_relative(rows: Sequence[Mapping[str, str]], corners: Sequence[str]) -> bool:
    """Whether no coordinate of a file is above 1."""
    highest = 0.0
    for row in rows:
        for corner in corners:
            try:
                highest = max(highest, float(row[corner]))
            except (TypeError, ValueError):
                pass
    return 0 < highest <= 1
