"""Boxes in CSV files: one row per box, with a header."""

import csv
import io
import os.path as osp
import re
from collections.abc import Mapping, Sequence

from ...errors import InputError
from .boxes import load_globox, parse_box
from .files import MISSING_IMAGES, FolderFiles, first_split, split_of_folder, split_of_words
from .records import AnnotatedImage, Counts
from .text import read_text

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
# Neither their unit nor the centre of the rotation is the same everywhere.
_ANGLES = ("rotation", "angle", "theta", "boxrotation", "rotationangle")
_SEPARATORS = ",;\t|"
_CORNERS = ("x1", "y1", "x2", "y2")
_OWN_KEYS = {"id", "file_name", "width", "height"}


def is_table(files: FolderFiles) -> bool:
    """Whether a CSV file has the columns of a box."""
    return any(_columns(files, path) for path in files.annotations(".csv"))


def read_table(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read CSV files with a header.

    Coordinates are pixels or, if none of a file is above 1, parts of the image. A row without a
    class and coordinates is an image without objects. Other columns become keys of the image. The
    separator is one of ``, ; | `` and the tab; with another than the comma, decimal commas count.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and None, since the format has no list of classes.

    Raises:
        InputError: no file has the columns of a box, or a file is no table or has rotated boxes.
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


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _lines_of(text: str) -> tuple[io.StringIO, str]:
    """The text from its header on, and its separator."""
    start, _, rest = text.partition("\n")
    if start.lower().startswith("sep="):  # a line of Excel's
        return io.StringIO(rest, newline=""), start[4:5]
    try:
        separator = csv.Sniffer().sniff(start, _SEPARATORS).delimiter
    except csv.Error:  # a header of one column
        separator = ","
    return io.StringIO(text, newline=""), separator


def _columns(files: FolderFiles, path: str) -> dict[str, str]:
    """{meaning: name of the column}; empty if the table is of something else."""
    try:
        lines, separator = _lines_of(read_text(files.full(path)))
        header = next(csv.reader(lines, delimiter=separator), [])
    except (OSError, csv.Error):
        return {}
    plain = {_plain(name): name for name in header}
    columns = {
        meaning: next((plain[name] for name in names if name in plain), "")
        for meaning, names in _COLUMNS.items()
    }
    complete = all(columns[meaning] for meaning in ("image", "label", *_CORNERS))
    return columns if complete else {}


def _rows(files: FolderFiles, path: str, corners: Sequence[str], counts: Counts) -> list[dict]:
    """The rows of a CSV file.

    Raises:
        InputError: a row cannot be read, or a box is rotated.
    """
    lines, separator = _lines_of(read_text(files.full(path), counts, path))
    try:
        rows = list(csv.DictReader(lines, delimiter=separator))
    except csv.Error as error:
        raise InputError(f"{files.full(path)} is no CSV file that can be read: {error}.") from None
    for number, row in enumerate(rows, 2):
        if separator != ",":
            row.update({corner: (row[corner] or "").replace(",", ".") for corner in corners})
        for name in row:
            if name and _plain(name) in _ANGLES and not _is_zero(row[name]):
                raise InputError(
                    f"{files.full(path)}, row {number}: {name} is {row[name]}. The boxes of a CSV "
                    "file are upright: write the box around the rotated corners, and remove the "
                    "column. If it is no rotation of boxes, rename it."
                )
    return rows


def _is_zero(text: str | None) -> bool:
    """Whether the text is empty or the number 0."""
    try:
        return float((text or "").replace(",", ".") or 0) == 0
    except ValueError:
        return False


def _read_file(
    files: FolderFiles,
    path: str,
    columns: Mapping[str, str],
    read: dict[str, AnnotatedImage],
    counts: Counts,
) -> None:
    """Add the boxes of a CSV file to the images."""
    corners = [columns[corner] for corner in _CORNERS]
    rows = _rows(files, path, corners, counts)
    relative = _are_relative(rows, corners)
    missing = set()
    for row in rows:
        name = (row[columns["image"]] or "").strip()
        words = [row.get(columns["split"]) or "", osp.splitext(osp.basename(path))[0]]
        of_row = split_of_words(words)
        image = files.image_named(name, path, of_row) if name else None
        split = first_split(of_row, split_of_folder(image or ""), split_of_folder(path))
        if image is None:
            if name not in missing:
                counts.add(MISSING_IMAGES, name or path, split=split)
            missing.add(name)
            continue
        size = files.size(image, counts, split)
        if size is None:
            continue
        if image not in read:
            others = set(row) - set(columns.values()) - _OWN_KEYS - {None}
            read[image] = AnnotatedImage(image, size, split, [], {key: row[key] for key in others})
        label, texts = row[columns["label"]], [row[corner] for corner in corners]
        if not label and not any(texts):
            continue
        line = " ".join(["0", *(text or "?" for text in texts)])
        box = parse_box(load_globox().BoundingBox.from_txt, line, path, counts, split,
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
