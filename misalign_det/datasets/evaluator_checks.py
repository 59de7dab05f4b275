"""Check that a dataset and the evaluator of its split agree."""

import os.path as osp
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.evaluation import CocoMetric, MultiDatasetsEvaluator
from mmdet.registry import EVALUATOR, METRICS

from ..errors import InputError
from ..evaluation.misalignment_metric import MisalignmentMetric
from ..evaluation.visdrone_metric import VisDroneMetric
from ..utils import is_type
from ..utils.json_file import read_json
from ..utils.text import shorten
from .annotation_checks import Remark, check_categories, check_references, coco_parts, is_remote


@dataclass
class CocoFile:
    """The content of an annotation file.

    Attributes:
        where: config key of the dataset or evaluator.
        path: of the file.
        images, annotations, categories: from `coco_parts`.
        classes: of the dataset.
        indices: `indices` of the dataset; None if it uses all images.
    """

    where: str
    path: str
    images: list[dict]
    annotations: list[dict]
    categories: list[dict]
    classes: Sequence[str]
    indices: Any = None


def metrics(evaluator: Any, key: str) -> Iterator[tuple[str, Mapping, int | None]]:
    """Iterate over the metrics of an evaluator's config.

    Args:
        evaluator: a metric's config, a list of them, or a config with ``metrics``.
        key: of the evaluator in the config.

    Yields:
        Key and config of the metric, and the index of its dataset; None if the metric gets the
        results of all datasets.
    """
    if isinstance(evaluator, (list, tuple)):
        for i, part in enumerate(evaluator):
            yield from metrics(part, f"{key}.{i}")
    elif isinstance(evaluator, Mapping) and "metrics" in evaluator:
        apart = is_type(evaluator.get("type"), MultiDatasetsEvaluator, EVALUATOR)
        parts = evaluator["metrics"]
        for i, part in enumerate(parts if isinstance(parts, (list, tuple)) else [parts]):
            if isinstance(part, Mapping):
                yield f"{key}.metrics.{i}", part, i if apart else None
    elif isinstance(evaluator, Mapping) and evaluator:
        yield key, evaluator, None


def needs_annotations(evaluator: Any) -> bool:
    """Whether any metric of an evaluator's config uses annotations.

    Args:
        evaluator: see :func:`metrics`.
    """
    found = [metric for _, metric, _ in metrics(evaluator, "")]
    return not found or not all(metric.get("format_only") for metric in found)


def check_metric(metric: Mapping, key: str, files: Sequence[CocoFile] | None) -> list[str]:
    """Check the annotation file of a metric, and that it belongs to the datasets.

    Args:
        metric: its config.
        key: its key in the config.
        files: of the datasets whose results it evaluates; None if any is not in COCO format.

    Returns:
        Notes.

    Raises:
        InputError: there is no such file, the metric cannot use it, or its images or classes are
            not those of the datasets.
    """
    path = metric.get("ann_file")
    if not isinstance(path, str) or not path:
        return []  # the metric gets the ground truth from the dataset
    if "://" in path or is_remote(metric.get("backend_args")):
        return [Remark(f"{key}: {path} is on remote storage and was not checked.")]
    if not osp.isfile(path):
        raise InputError(
            f"{key}: there is no annotation file {path}. It must be the dataset's "
            "(--cfg-options data_root=... moves both)."
        )
    kind = metric.get("type")
    plain = is_type(kind, CocoMetric, METRICS)
    if not files or not (plain or is_type(kind, (MisalignmentMetric, VisDroneMetric), METRICS)):
        return []
    annotated = not metric.get("format_only")
    one = len(files) == 1 and osp.isfile(files[0].path) and osp.samefile(files[0].path, path)
    notes = []
    if one:
        file = files[0]
    else:
        parts = coco_parts(read_json(path, key), path, key, annotated)
        check_references(*parts, path, key)
        file = CocoFile(key, path, *parts, files[0].classes)
        check_categories(parts[1], parts[2], file.classes, path, key, extra="skip")
        notes += _compare(file, files, annotated)
    if annotated and plain:  # the other two give pycocotools ids of their own
        _check_evaluation_keys(file, key)
        notes += _check_ids(file, key)
    for part in files:
        if part.indices is not None:
            notes.append(
                f"{part.where}: indices={part.indices} leaves images out that {key} "
                f"counts; their objects count as missed in AP."
            )
    return notes


def _compare(file: CocoFile, files: Sequence[CocoFile], annotated: bool) -> list[str]:
    """Return notes on boxes that differ; raise InputError if the images differ."""
    names = [(image["id"], image["file_name"]) for part in files for image in part.images]
    several = [i for i, n in Counter(i for i, _ in names).items() if n > 1]
    sets = ", ".join(part.path for part in files)
    if several and len({part.path for part in files}) < len(files):
        raise InputError(
            f"{file.where}: {sets}: the same file is listed more than once, so that {file.path} "
            f"counts every detection of its images that often. List it once."
        )
    if several:
        raise InputError(
            f"{file.where}: {file.path} cannot tell the images of {sets} apart: the ids "
            f"{shorten(several)} occur in more than one of them. Give each image an id of its own."
        )
    given = dict(names)
    own = {image["id"]: image["file_name"] for image in file.images}
    lacking = [i for i in given if i not in own]
    more = [i for i in own if i not in given]
    other = [i for i in given if i in own and _stem(own[i]) != _stem(given[i])]
    for ids, what in (
        (lacking, "lacks images of"),
        (more, "has images that are not in"),
        (other, "gives the ids to other image files than"),
    ):
        if ids:
            raise InputError(
                f"{file.where}: {file.path} {what} {sets}, which {files[0].where} reads: "
                f"{len(ids)} image ids ({shorten(ids)}). Set {file.where}.ann_file to the "
                "dataset's file."
            )
    if not annotated:
        return []
    theirs: defaultdict[Any, set] = defaultdict(set)
    for part in files:
        _collect(part, theirs)
    ours = _collect(file, defaultdict(set))
    differ = [own[i] for i in own if theirs[i] != ours[i]]
    if not differ:
        return []
    return [
        f"{file.where}: {file.path} is another file than {sets}, which {files[0].where} reads, "
        f"and the boxes of {len(differ)} of {len(own)} images differ ({shorten(differ, 3)}). AP "
        "uses the evaluator's boxes. Is that intended?"
    ]


def _stem(name: str) -> str:
    """An image's file name without folder and suffix."""
    return osp.splitext(osp.basename(name))[0]


def _collect(file: CocoFile, found: defaultdict[Any, set]) -> defaultdict[Any, set]:
    """Add the class name and box of each annotation to the set of its image."""
    names = {c["id"]: c["name"] for c in file.categories if c["name"] in file.classes}
    for item in file.annotations:
        if item["category_id"] in names:
            box = item["bbox"] if isinstance(item["bbox"], list) else [item["bbox"]]
            found[item["image_id"]].add((names[item["category_id"]], *map(str, box)))
    return found


def _check_evaluation_keys(file: CocoFile, key: str) -> None:
    """Check what pycocotools needs: `iscrowd`, ids that are numbers, image ids of one type.

    Raises:
        InputError: it could not evaluate.
    """
    total = len(file.annotations)
    for what, bad in (
        (
            "lack the key 'iscrowd', which pycocotools needs",
            [a for a in file.annotations if a.get("iscrowd") is None],
        ),
        (
            "have an id that is not a number, as pycocotools needs",
            [a for a in file.annotations if _number(a["id"]) is None],
        ),
    ):
        if bad:
            change = "Add \"iscrowd\": 0." if "iscrowd" in what else "Number them from 1."
            raise InputError(
                f"{key}: {file.path}: {len(bad)} of {total} annotations {what} to "
                f"evaluate (the first has id {bad[0]['id']!r}). {change}"
            )
    if len({isinstance(image["id"], str) for image in file.images}) > 1:
        text = next(i["id"] for i in file.images if isinstance(i["id"], str))
        raise InputError(
            f"{key}: {file.path}: some image ids are numbers, others strings such as "
            f"{text!r}; pycocotools would find only one of the two. Use one type."
        )


def _check_ids(file: CocoFile, key: str) -> list[str]:
    if not any(_number(a["id"]) == 0 for a in file.annotations):
        return []
    return [
        f"{key}: {file.path} has an annotation with id 0, which pycocotools never counts as "
        "found: CocoMetric's AP will be too low. Number annotations from 1. "
        "(MisalignmentMetric and tools/analysis/compare_ap.py are not affected.)"
    ]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
