"""Average precision of a list of boxes, by pycocotools.

mmdet's wrappers of pycocotools are imported inside the functions that use them: they load all of
mmdet.datasets, which takes longer than the rest of this package.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.fileio import get_local_path

from ..errors import InputError
from ..utils import class_names
from ..utils.json_file import read_json

if TYPE_CHECKING:
    from mmdet.datasets.api_wrappers import COCO, COCOeval

_NEEDED = {
    "images": ("id",),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}


def load_annotations(ann_file: str | Path | COCO) -> COCO:
    """Read and index an annotation file, without pycocotools' messages.

    Args:
        ann_file: a file in COCO's format, or annotations that are indexed already, which are
            returned as they are. Ids may be integers or strings.

    Raises:
        InputError: there is no such file, or it is not in COCO's format.
    """
    from mmdet.datasets.api_wrappers import COCO  # here: see the head of this file

    if isinstance(ann_file, COCO):
        return ann_file
    with get_local_path(str(ann_file)) as path:
        content = read_json(path, "ann_file")
    return index_annotations(content, str(ann_file))


def index_annotations(content: dict[str, Any], name: str = "the annotations") -> COCO:
    """Index annotations in memory.

    Args:
        content: in COCO's format; ``annotations`` may be absent.
        name: how messages call the annotations.

    Raises:
        InputError: a list or a key is missing, or a box or an area is no number.
    """
    if not isinstance(content, dict):
        raise InputError(f"{name} hold a JSON {type(content).__name__}, not an object as COCO's.")
    for part, keys in _NEEDED.items():
        entries = content.get(part, [] if part == "annotations" else None)
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise InputError(f"{name}: COCO's format has a list of objects {part!r}.")
        for key in keys:
            if not all(key in entry for entry in entries):
                raise InputError(f"{name}: an entry of {part!r} has no {key!r}.")
    for annotation in content.get("annotations", ()):
        _check_numbers(annotation, name)
    return _indexed(content)


def _check_numbers(annotation: dict[str, Any], name: str) -> None:
    """Check that the box is four finite numbers, and the area one, if it is there."""
    box, area = annotation["bbox"], annotation.get("area", 0)
    whose = f"{name}: the annotation with id {annotation['id']!r} has"
    if not (
        isinstance(box, (list, tuple, np.ndarray)) and len(box) == 4 and all(map(_is_number, box))
    ):
        raise InputError(f"{whose} the bbox {box!r}. It must be four numbers: x, y, width, height.")
    if not _is_number(area):
        raise InputError(f"{whose} the area {area!r}. It must be a number, or be left out.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def _indexed(content: dict[str, Any]) -> COCO:
    from mmdet.datasets.api_wrappers import COCO  # here: see the head of this file

    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def category_ids(coco: COCO, classes: str | Sequence[str]) -> list[int | str]:
    """The category id of each class in the annotations, in the order of the classes.

    Args:
        coco: annotations, from :func:`load_annotations`.
        classes: class names; a single one may be a string.

    Raises:
        InputError: the file lacks a class or has it twice, or the classes repeat one.
    """
    classes = class_names(classes)
    names = [category["name"] for category in coco.dataset["categories"]]
    missing = [name for name in classes if name not in names]
    if missing:
        raise InputError(
            f"the annotation file has no category {missing[0]!r} (and {len(missing) - 1} others). "
            f"It has {names}. Give the classes of the detector under the file's names."
        )
    for where, several in (("the annotation file", names), ("the list of classes", classes)):
        twice = [name for name, count in Counter(several).items() if count > 1 and name in classes]
        if twice:
            raise InputError(f"{where} has {twice[0]!r} several times.")
    ids = {category["name"]: category["id"] for category in coco.dataset["categories"]}
    return [ids[name] for name in classes]


def is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is a crowd region; ``iscrowd`` may be a string such as ``'0'``."""
    flag = annotation.get("iscrowd") or 0
    return flag.strip().lower() not in ("", "0", "false") if isinstance(flag, str) else bool(flag)


def check_labels(labels: np.ndarray, classes: Sequence[int | str]) -> None:
    """Check that every label is an index of a class.

    Args:
        labels: ``(D,)``.
        classes: names or category ids.

    Raises:
        InputError: a label is beyond the list of classes.
    """
    if len(labels) and labels.max() >= len(classes):
        raise InputError(
            f"the detections have a label {int(labels.max())}, but only {len(classes)} classes are "
            "given. Give all classes of the detector, in its order."
        )


def average_precision(
    coco: COCO,
    image_ids: Sequence[int | str] | np.ndarray,
    bboxes: np.ndarray,
    scores: Sequence[float] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    categories: Sequence[int | str],
    max_dets: int = 100,
) -> np.ndarray:
    """COCO's AP of each class, averaged over IoU 0.5 to 0.95.

    Args:
        coco, image_ids, bboxes, scores, labels, categories, max_dets: see :func:`matched_boxes`.

    Returns:
        ``(len(categories),)``; NaN for a class without objects.

    Raises:
        InputError: see :func:`matched_boxes`.
    """
    evaluation = matched_boxes(coco, image_ids, bboxes, scores, labels, categories, max_dets)
    # (IoU, recall, class, area, max_dets); -1 where a class has no object.
    precision = accumulated(evaluation)[:, :, :, 0, 0]
    precision = np.where(precision > -1, precision, np.nan)
    return precision.mean(axis=(0, 1))


def best_of_class(
    image_ids: Sequence[int | str] | np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    max_dets: int = 100,
) -> np.ndarray:
    """Which boxes count for AP: per image and class those of the highest score.

    For a ranking of the same boxes by something else, which would choose others.

    Args:
        image_ids, scores, labels, max_dets: see :func:`matched_boxes`.

    Returns:
        ``(D,)`` bool.
    """
    kept = np.zeros(len(scores), bool)
    seen: Counter[tuple[int | str, int]] = Counter()
    # Of equal scores the first count, as in pycocotools.
    for row in np.argsort(-np.asarray(scores), kind="stable"):
        group = image_ids[row], int(labels[row])
        kept[row] = seen[group] < max_dets
        seen[group] += 1
    return kept


def accumulated(evaluation: COCOeval) -> np.ndarray:
    """Accumulate pycocotools' evaluation without its messages.

    Returns:
        Precision by IoU threshold, recall, class, size and ``max_dets``, ``(10, 101, C, 1, 1)``, or
        ``(10, 101, C, 4, 1)`` with ``by_size`` of :func:`matched_boxes`; -1 where a class has no
        object.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation.eval["precision"]


def matched_boxes(
    coco: COCO,
    image_ids: Sequence[int | str] | np.ndarray,
    bboxes: np.ndarray,
    scores: Sequence[float] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    categories: Sequence[int | str],
    max_dets: int = 100,
    by_size: bool = False,
) -> COCOeval:
    """pycocotools' evaluation of boxes, evaluated per image, not yet accumulated.

    Images, classes and annotations get new ids, in the order of the file and of ``categories``:
    pycocotools takes a match with annotation 0 for no match, and ids may be strings.

    Args:
        coco: annotations, from :func:`load_annotations`.
        image_ids: of the boxes' images in the annotations, ``(D,)``.
        bboxes: xyxy in pixels of the original image, ``(D, 4)``.
        scores: ``(D,)``.
        labels: class indices, ``(D,)``.
        categories: category id of each class; objects of other categories are left out.
        max_dets: boxes per image and class that count, those of the highest score.
        by_size: whether COCO's small, medium and large objects are evaluated too, after those of
            any size.

    Raises:
        InputError: the annotations lack an image, or a label is beyond ``categories``.
    """
    from mmdet.datasets.api_wrappers import COCO, COCOeval  # here: see the head of this file

    labels = np.asarray(labels).astype(int)
    check_labels(labels, categories)
    numbered, numbers = _numbered(coco, categories)
    check_images(coco, image_ids)
    rows = [
        dict(
            image_id=numbers[image],
            bbox=[float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            score=float(score),
            category_id=int(label) + 1,
        )
        for image, (x0, y0, x1, y1), score, label in zip(image_ids, bboxes, scores, labels)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(numbered, numbered.loadRes(rows) if rows else COCO(), "bbox")
        evaluation.params.catIds = list(range(1, len(categories) + 1))
        if not by_size:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
    return evaluation


def check_images(coco: COCO, image_ids: Iterable[int | str]) -> None:
    """Check that the annotations have every image.

    Raises:
        InputError: they lack some.
    """
    missing = [image for image in dict.fromkeys(image_ids) if image not in coco.imgs]
    if missing:
        raise InputError(
            f"the annotation file has no image {_plain(missing[0])!r}, which the detections have "
            f"(and {len(missing) - 1} others). Give the annotations of the split that was tested."
        )


def _numbered(coco: COCO, categories: Sequence[int | str]) -> tuple[COCO, dict[int | str, int]]:
    """The annotations of some categories with ids from 1, and the new id of each image."""
    numbers = {image["id"]: number for number, image in enumerate(coco.dataset["images"], 1)}
    own = {category: number for number, category in enumerate(categories, 1)}
    objects = [
        a for a in coco.dataset.get("annotations", ())
        if a["category_id"] in own and a["image_id"] in numbers
    ]  # fmt: skip
    content = dict(
        images=[dict(id=number) for number in numbers.values()],
        categories=[dict(id=number) for number in own.values()],
        annotations=[
            dict(
                id=number,
                image_id=numbers[a["image_id"]],
                category_id=own[a["category_id"]],
                bbox=a["bbox"],
                area=a.get("area", a["bbox"][2] * a["bbox"][3]),
                iscrowd=int(is_crowd(a)),
            )
            for number, a in enumerate(objects, 1)
        ],
    )
    return _indexed(content), numbers


def _plain(value: Any) -> Any:
    """A NumPy scalar as a Python scalar, for messages."""
    return value.item() if isinstance(value, np.generic) else value
