"""VisDrone-DET: its text files as COCO dictionaries, with ignored regions."""

import os.path as osp
from typing import Any

import numpy as np

from ...errors import InputError
from ...evaluation.visdrone_metric import covered_fraction
from .boxes import NO_AREA, UNREADABLE
from .files import MISSING_IMAGES, UNANNOTATED, FolderFiles
from .losses import check_losses
from .records import AnnotatedImage, Counts, LabelledBox
from .standard import from_images
from .text import read_text

CLASSES = ("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle",
           "bus", "motor")  # fmt: skip
IGNORED_REGION, OTHERS = 0, 11
IN_REGIONS, OF_OTHERS = "objects in ignored regions", "objects of the category others"
FOLDERS = {
    "train": "VisDrone2019-DET-train",
    "val": "VisDrone2019-DET-val",
    "test": "VisDrone2019-DET-test-dev",
}


def read_visdrone(root: str, counts: Counts) -> dict[str, dict[str, Any]]:
    """Read the splits of VisDrone-DET 2019 whose folders are there.

    Args:
        root: holds one or more of :data:`FOLDERS`, each with ``images`` and ``annotations``.
        counts: counts what is left out.

    Returns:
        {split: COCO dictionary}, with file names relative to ``root``.

        An ignored region is a crowd of each class, so that detectors and evaluations that know
        crowds leave it out; each image also lists its regions as ``ignored_regions``
        (x, y, w, h), for ``VisDroneMetric``. An object whose score is 0 is a crowd too. As in
        VisDrone's toolkit, objects with half of their area in ignored regions and the category
        ``others`` are no objects. ``truncation`` and ``occlusion`` are keys of the annotations.

    Raises:
        InputError: none of the folders is there, or one of them has no annotations, or most of
            its boxes cannot be used.
    """
    found = {split: name for split, name in FOLDERS.items() if osp.isdir(osp.join(root, name))}
    if not found:
        raise InputError(f"{root} has none of the folders {', '.join(FOLDERS.values())}.")
    contents = {split: _read_split(root, name, split, counts) for split, name in found.items()}
    kept = {}
    for split, content in contents.items():
        meant = counts.of_split(split).only([IN_REGIONS, OF_OTHERS])  # to be left out
        objects = sum(not box["iscrowd"] for box in content["annotations"])
        kept[split] = (len(content["images"]), objects + sum(meant.number.values()))
    check_losses(root, kept, counts)
    return contents


def _read_split(root: str, name: str, split: str, counts: Counts) -> dict[str, Any]:
    files = FolderFiles(osp.join(root, name))
    images, annotated = [], set()
    for path in files.annotations(".txt"):
        image = files.image_of(path)
        if image is None:
            counts.add(MISSING_IMAGES, f"{name}/{path}", split=split)
            continue
        annotated.add(image)
        size = files.size(image, counts, split)
        if size is not None:
            rows = _rows(files.full(path), f"{name}/{path}", counts, split)
            boxes, ignored = _boxes(rows, size, f"{name}/{path}", counts, split)
            attributes = {"ignored_regions": ignored}
            images.append(AnnotatedImage(f"{name}/{image}", size, split, boxes, attributes))
    if not images:
        raise InputError(f"{files.root} has no annotations/*.txt with images.")
    for image in files.images:
        if image not in annotated:
            counts.add(UNANNOTATED, f"{name}/{image}", split=split)
    return from_images(images, CLASSES, counts)


def _rows(path: str, where: str, counts: Counts, split: str) -> list[list[int]]:
    """The lines of a file: x, y, w, h, score, category, truncation, occlusion."""
    rows = []
    for line in read_text(path).splitlines():
        if not line.strip():
            continue
        try:
            row = [int(word) for word in line.strip().rstrip(",").split(",")]
        except ValueError:
            row = []
        if len(row) != 8 or not 0 <= row[5] <= OTHERS:
            counts.add(UNREADABLE, where, split=split)
        elif row[2] < 1 or row[3] < 1:
            counts.add(NO_AREA, where, split=split)
        else:
            rows.append(row)
    return rows


def _boxes(
    rows: list[list[int]], size: tuple[int, int], where: str, counts: Counts, split: str
) -> tuple[list[LabelledBox], list[list[int]]]:
    """Objects and crowds of an image, and its ignored regions (x, y, w, h)."""
    ignored = [row[:4] for row in rows if row[5] == IGNORED_REGION]
    rows = [row for row in rows if row[5] != IGNORED_REGION]
    corners = _corners([row[:4] for row in rows])
    covered = covered_fraction(corners, _corners(ignored), (size[1], size[0]))
    boxes = []
    for row, fraction in zip(rows, covered):
        if row[5] == OTHERS:
            counts.add(OF_OTHERS, where, split=split)
        elif fraction >= 0.5:
            counts.add(IN_REGIONS, where, split=split)
        else:
            x, y, w, h, score, category, truncation, occlusion = row
            attributes = {"truncation": truncation, "occlusion": occlusion}
            box = (float(x), float(y), float(x + w), float(y + h))
            boxes.append(LabelledBox(CLASSES[category - 1], box, score == 0, attributes))
    for x, y, w, h in ignored:
        place = (float(x), float(y), float(x + w), float(y + h))
        boxes += [LabelledBox(label, place, True) for label in CLASSES]
    return boxes, ignored


def _corners(boxes: list[list[int]]) -> np.ndarray:
    corners = np.array(boxes, dtype=float).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners
