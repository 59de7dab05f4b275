"""Boxes in CSV files: one row per box, with a header."""

import csv
import io
import os.path as osp
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InputError
from .boxes import OTHER_SIZE, load_globox, parse_box
from .files import MISSING_IMAGES, FolderFiles
from .records import (
    NOT_IN_SPLIT,
    UNNAMED,
    AnnotatedImage,
    Counts,
    LabelledBox,
    first_split,
    split_of_folder,
    split_of_words,
)
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
    "width": ("imagewidth", "imgwidth", "width"),
    "height": ("imageheight", "imgheight", "height"),
}
# Neither their unit nor the centre of the rotation is the same everywhere.
_ANGLES = ("rotation", "angle", "theta", "boxrotation", "rotationangle")
_SEPARATORS = ",;\t|"
_CORNERS = ("x1", "y1", "x2", "y2")
_OWN_KEYS = {"id", "file_name", "width", "height"}
_HIGHEST = 1.5  # of a coordinate that is a part of the image; some reach a little over the border
_TESTED = 1000  # values of a column that are looked for among the names of images
AGAIN = "images of a split that a CSV file without a split lists again"


def is_table(files: FolderFiles) -> bool:
    """Whether a CSV file has the columns of a box."""
    return any(_columns(files, path) for path in files.annotations(".csv"))


def read_table(files: FolderFiles, counts: Counts) -> tuple[list[AnnotatedImage], list[str] | None]:
    """Read CSV files with a header.

    Coordinates are pixels or, if none of a file is above 1.5, parts of the image. A row without a
    class and coordinates is an image without objects. Other columns become keys of the image. The
    separator is one of ``, ; | `` and the tab; with another than the comma, decimal commas count.

    The split of a box is in a column, or else in the name of its file or of a folder. An image may
    be in several splits; where it is in any, a file of no split adds nothing to it.

    Args:
        files: of the data folder.
        counts: counts what is left out.

    Returns:
        The images; and None, since the format has no list of classes.

    Raises:
        InputError: no file has the columns of a box, or a file is no table, has rotated boxes, or
            boxes of which most but not all are parts of the image.
    """
    tables = {path: _columns(files, path) for path in files.annotations(".csv")}
    tables = {path: columns for path, columns in tables.items() if columns}
    if not tables:
        raise InputError(
            f"{files.root}: no CSV file has a header with the columns of a box: filename, class, "
            "xmin, ymin, xmax, ymax."
        )
    of_name = {path: split_of_words(_words(path)) for path in tables}
    read: list[AnnotatedImage] = []
    missing: dict[tuple[str, str | None], str] = {}
    for path, columns in tables.items():
        split = of_name[path]
        if split == "trainval" and "train" in of_name.values():
            split = None
        read += _read_file(files, path, split, columns, missing, counts)
    for (name, split), path in missing.items():
        if split or not any(other == name and of for other, of in missing):
            counts.add(MISSING_IMAGES, name or path, split=split)
    files.count_unannotated([image.path for image in read], counts, UNNAMED)
    return _without_repeated(read, counts), None


def _without_repeated(images: list[AnnotatedImage], counts: Counts) -> list[AnnotatedImage]:
    """The images without those of no split that are in a split too."""
    in_splits: dict[str, list[LabelledBox]] = defaultdict(list)
    for image in images:
        if image.split:
            in_splits[image.path] += image.boxes
    kept = []
    for image in images:
        if image.split or image.path not in in_splits:
            kept.append(image)
            continue
        more = sum(box not in in_splits[image.path] for box in image.boxes)
        counts.add(AGAIN, image.path)
        counts.add("boxes listed twice", image.path, len(image.boxes) - more)
        counts.add(NOT_IN_SPLIT, image.path, more)
    return kept


def _words(path: str) -> list[str]:
    """The words in the name of a file."""
    return re.split(r"[-_. ]", osp.splitext(osp.basename(path))[0])


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def _lines_of(text: str) -> tuple[io.StringIO, str]:
    """The text from its header on, and its separator."""
    start, _, rest = text.partition("\n")
    if start.lower().startswith("sep="):  # a line of Excel's
        separator = start.rstrip("\r")[4:5]
        if separator:
            return io.StringIO(rest, newline=""), separator
        text, start = rest, rest.partition("\n")[0]
    try:
        separator = csv.Sniffer().sniff(start, _SEPARATORS).delimiter
    except csv.Error:  # a header of one column
        separator = ","
    return io.StringIO(text, newline=""), separator


def _columns(files: FolderFiles, path: str) -> dict[str, list[str]]:
    """{meaning: names of the columns that may have it}; empty if the table is of something else."""
    try:
        lines, separator = _lines_of(read_text(files.full(path)))
        header = next(csv.reader(lines, delimiter=separator), [])
    except (OSError, csv.Error):
        return {}
    plain = {_plain(name): name for name in header}
    columns = {
        meaning: [plain[name] for name in names if name in plain]
        for meaning, names in _COLUMNS.items()
    }
    complete = all(columns[meaning] for meaning in ("image", "label", *_CORNERS))
    return columns if complete else {}


def _image_column(
    files: FolderFiles, path: str, names: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> str:
    """The column whose values are most often the names of images; else the first one."""

    def matches(column: str) -> tuple[int, int]:
        values = list(dict.fromkeys((row[column] or "").strip() for row in rows))[:_TESTED]
        found = [(value, files.image_named(value, path)) for value in values if value]
        whole = sum(f"/{image}".endswith(f"/{osp.basename(value)}") for value, image in found)
        return whole, sum(image is not None for _, image in found)  # a number may be a stem, too

    return names[0] if len(names) == 1 else max(names, key=matches)


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
        return float((text or "").strip().replace(",", ".") or 0) == 0
    except ValueError:
        return False


def _read_file(
    files: FolderFiles,
    path: str,
    of_name: str | None,
    columns: Mapping[str, Sequence[str]],
    missing: dict[tuple[str, str | None], str],
    counts: Counts,
) -> list[AnnotatedImage]:
    """Read the images of a CSV file.

    Args:
        files: of the data folder.
        path: of the CSV file.
        of_name: the split that it is named after.
        columns: result of :func:`_columns`.
        missing: {(name, split): CSV file} of the images that are not there; extended in place.
        counts: counts what is left out.

    Returns:
        The images, each once per split.
    """
    chosen = {meaning: names[0] for meaning, names in columns.items() if names}
    corners = [chosen[corner] for corner in _CORNERS]
    rows = _rows(files, path, corners, counts)
    chosen["image"] = _image_column(files, path, columns["image"], rows)
    relative = _are_relative(rows, corners, files.full(path))

    def value(row: Mapping[str, Any], meaning: str) -> str:  # a column may have no name
        return (row.get(chosen[meaning]) or "").strip() if meaning in chosen else ""

    # A column without any split's name, such as a number of subsets, is about something else.
    stated = [value(row, "split") for row in rows]
    has_splits = bool(split_of_words(stated))
    places: dict[tuple[str, str | None], tuple[str | None, str]] = {}  # of names in a split
    read: dict[tuple, AnnotatedImage | None] = {}  # None: unreadable
    other_size = set()
    for row, text in zip(rows, stated):
        name = (row[chosen["image"]] or "").strip()
        of_row = split_of_words([text]) if has_splits and text else of_name
        if (name, of_row) not in places:
            places[name, of_row] = files.find_image(name, path, of_row) if name else (None, "")
        image, elsewhere = places[name, of_row]
        split = first_split(of_row, split_of_folder(image or name), split_of_folder(path))
        if has_splits and text and not of_row:
            split = None  # it has a split, but none of those that are read
        if image is None:
            missing.setdefault((name, split), path)
            continue
        key = (image, split, elsewhere)
        if key not in read:
            size = files.size(image, counts, split)
            others = set(row) - {*chosen.values()} - _OWN_KEYS - {None}
            attributes = {key: row[key] for key in others}
            read[key] = size and AnnotatedImage(
                image, size, split, [], attributes, source=path, elsewhere=elsewhere
            )
        found = read[key]
        label, texts = (row[chosen["label"]] or "").strip(), [row[corner] for corner in corners]
        if not found or (not label and all(map(_is_zero, texts))):
            continue
        line = " ".join(["0", *(text or "?" for text in texts)])
        box = parse_box(load_globox().BoundingBox.from_txt, line, path, counts, split,
                        relative=relative, image_size=found.size)  # fmt: skip
        if box:
            box.label = label
            found.boxes.append(box)
            sides = [value(row, side) for side in ("width", "height")]
            if not relative and image not in other_size and _is_other_size(sides, found):
                other_size.add(image)
                counts.add(OTHER_SIZE, f"{path}: {image}")
    return _with_own_split([image for image in read.values() if image])


def _with_own_split(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """The images; boxes in rows without a split are of the split that other rows have."""
    in_split = {(image.path, image.elsewhere): image for image in images if image.split}
    kept = []
    for image in images:
        known = in_split.get((image.path, image.elsewhere))
        if known and not image.split:
            known.boxes += image.boxes
        else:
            kept.append(image)
    return kept


def _is_other_size(sides: Sequence[str | None], image: AnnotatedImage) -> bool:
    """Whether the width and height in the row of an image's last box are of neither of the two.

    In some tables they are those of the box.
    """
    try:
        size = tuple(float(side or 0) for side in sides)
    except ValueError:
        return False
    x1, y1, x2, y2 = image.boxes[-1].bbox
    of_box = max(abs(size[0] - (x2 - x1)), abs(size[1] - (y2 - y1))) <= 1
    return size != image.size and min(size) > 0 and not of_box


def _are_relative(rows: Sequence[Mapping[str, str]], corners: Sequence[str], path: str) -> bool:
    """Whether no coordinate of a file is above what rounding makes of 1.

    Raises:
        InputError: a coordinate is above, but those of most boxes are not.
    """
    highest: dict[int, tuple[float, str]] = {}  # of the rows with a box
    for number, row in enumerate(rows, 2):
        try:
            values = [float(row[corner]) for corner in corners]
        except (TypeError, ValueError):
            continue
        if max(values) > 0:
            highest[number] = max(zip(values, corners))
    above = [number for number, (value, _) in highest.items() if not value <= _HIGHEST]
    if above and len(above) < len(highest) / 2:
        value, corner = highest[above[0]]
        raise InputError(
            f"{path}, row {above[0]}: {corner} is {value:g}, but {len(highest) - len(above)} of "
            f"{len(highest)} boxes are parts of the image, from 0 to 1. Use the same unit in all "
            "rows: parts of the image, or pixels."
        )
    return bool(highest) and not above
