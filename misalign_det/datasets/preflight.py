"""Check the input before training or testing: annotation files, images, numbers of classes.

`tools/train.py` and `tools/test.py` call `check_config`. It reads each annotation file once, lists
the image folders and loads a few images, so that errors are reported before the run instead of
hours later or never.
"""

import logging
import os
import os.path as osp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.datasets.transforms import LoadEmptyAnnotations
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.logging import print_log

from ..errors import InputError
from ..utils import dataset_classes, find_type, is_type, leaf_datasets
from ..utils.json_file import no_garbage_collection, read_json
from ..utils.processes import is_first_process
from ..utils.text import shorten
from .annotation_checks import Remark, check_categories, check_references, coco_parts, is_remote
from .box_checks import check_boxes
from .evaluator_checks import CocoFile, check_metric, metrics, needs_annotations
from .image_checks import ImageFile, check_images
from .split_overlap import check_overlap
from .transforms import transform_class
from .voc_checks import check_voc

__all__ = ["InputError", "check_config"]


@dataclass
class _Found:
    """The result for one dataset.

    Attributes:
        notes: what is counted and left out.
        objects: number of boxes to train on; None if they were not counted.
        file: None if it is not in COCO format or was not read.
        images: their paths; empty if they were not looked for.
    """

    notes: list[str] = field(default_factory=list)
    objects: int | None = None
    file: CocoFile | None = None
    images: list[str] = field(default_factory=list)


def check_config(
    cfg: Config, modes: Sequence[str] = ("train", "val"), evaluators: bool = True
) -> list[str]:
    """Check the datasets and evaluators of a config.

    In a distributed run only the first process checks; the others return at once.

    Args:
        cfg: a detection config. Its optional `preflight` has the keys `enabled` (False disables
            the check) and `extra_categories`, ``'error'`` (default) or ``'skip'``, for boxes of
            categories that are not classes.
        modes: those of ``'train'``, ``'val'`` and ``'test'`` that are to run.
        evaluators: False where nothing is evaluated by them: their files are not checked then.

    Returns:
        Notes on what is counted and skipped. They are also logged, as warnings if anything is left
        out.

    Raises:
        InputError: the input cannot be used. All datasets are checked first; one line per error.

    Example:
        >>> from mmengine.config import Config
        >>> check_config(Config({'model': {}}), modes=('train', ))
        []
    """
    if not is_first_process():
        return []
    settings = cfg.get("preflight") or {}
    if not settings.get("enabled", True):
        print_log("The input is not checked: preflight.enabled is False.", logger="current")
        return []
    extra = settings.get("extra_categories", "error")
    if extra not in ("error", "skip"):
        raise InputError(f"preflight.extra_categories must be 'error' or 'skip', not {extra!r}.")
    notes: list[str] = []
    faults: list[str] = []
    seen: list[tuple] = []
    images: dict[str, dict[str, list[str]]] = {}
    for mode in modes:
        images[mode] = _check_mode(cfg, mode, extra, seen, notes, faults, evaluators)
    if not faults:
        if "train" in modes and "test" not in modes:
            images["test"] = _listed_images(cfg, "test")
        notes += _check_overlaps(images)
    for note in notes:
        level = logging.INFO if isinstance(note, Remark) else logging.WARNING
        print_log(note, logger="current", level=level)
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    return notes


def _check_mode(
    cfg: Config,
    mode: str,
    extra: str,
    seen: list[tuple],
    notes: list[str],
    faults: list[str],
    evaluators: bool,
) -> dict[str, list[str]]:
    """Add notes and errors of a split's datasets and evaluator.

    Args:
        cfg: the config.
        mode: ``'train'``, ``'val'`` or ``'test'``.
        extra: see `check_categories`.
        seen: datasets checked so far with their results; val and test are often the same.
        notes: extended in place.
        faults: error messages, extended in place.
        evaluators: whether the evaluator is checked.

    Returns:
        {config key: paths of the images} of its datasets.
    """
    where = f"{mode}_dataloader.dataset"
    dataset = (cfg.get(f"{mode}_dataloader") or {}).get("dataset")
    parts = list(leaf_datasets(dataset, where)) if isinstance(dataset, Mapping) else []
    evaluator = cfg.get(f"{mode}_evaluator") if mode != "train" else None
    annotated = len(parts) == 1 if mode == "train" else needs_annotations(evaluator)
    found = []
    for key, data in parts:
        try:
            known = next((f for d, f in seen if d == (mode == "train", annotated, data)), None)
            if known is None:
                known = _check_dataset(data, key, mode == "train", annotated, extra)
                seen.append(((mode == "train", annotated, data), known))
                notes += known.notes
            found.append(known)
            if not data.get("return_classes"):  # else the head's classes are words of a text prompt
                _check_num_classes(cfg.get("model"), dataset_classes(data), key)
        except InputError as error:
            faults.append(str(error))
    if mode == "train" and found and len(found) == len(parts):
        if all(part.objects == 0 for part in found):
            paths = ", ".join(osp.join(d.get("data_root") or "", d["ann_file"]) for _, d in parts)
            faults.append(
                "\n".join(
                    [
                        f"{where}: {paths} has no object to train on.",
                        *(n for f in found for n in f.notes),
                    ]
                )
            )
    files: list[CocoFile] | None = [part.file for part in found if part.file]
    if len(files or ()) != len(parts):
        files = None
    for key, metric, number in metrics(evaluator, f"{mode}_evaluator") if evaluators else ():
        own = files
        if files and number is not None:
            own = files[number : number + 1]
        try:
            with no_garbage_collection():
                notes += check_metric(metric, key, own)
        except InputError as error:
            faults.append(str(error))
    return {key: part.images for (key, _), part in zip(parts, found)}


def _listed_images(cfg: Config, mode: str) -> dict[str, list[str]]:
    """{config key: paths of the images} of the COCO datasets of a mode that is not to run now.

    Nothing else of them is checked. Empty if they are those of val, which are.
    """
    dataset, val = ((cfg.get(f"{name}_dataloader") or {}).get("dataset") for name in (mode, "val"))
    where, found = f"{mode}_dataloader.dataset", {}
    if dataset == val:
        return {}
    for key, data in leaf_datasets(dataset, where) if isinstance(dataset, Mapping) else ():
        root, name = data.get("data_root") or "", data.get("ann_file")
        kind = find_type(data.get("type"), DATASETS)
        coco = getattr(kind, "load_data_list", None) is CocoDataset.load_data_list
        if not coco or not isinstance(name, (str, os.PathLike)):
            continue
        try:
            content = read_json(osp.join(root, name), key, root)
            folder = osp.join(root, (data.get("data_prefix") or {}).get("img") or "")
            found[key] = [osp.join(folder, image["file_name"]) for image in content["images"]]
        except (InputError, KeyError, TypeError):  # reported once the mode is to run
            continue
    return found


def _check_overlaps(images: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Notes on images of val and test, per mode and config key, that are trained on.

    A config that trains and tests on the very same images means it, and gets none.
    """
    parts = list(images.get("train", {}).values())
    trained_on = [path for part in parts for path in part]
    notes, checked = [], parts
    for mode in ("val", "test"):
        for key, paths in images.get(mode, {}).items():
            if trained_on and paths and set(paths) not in map(set, checked):
                notes += check_overlap(trained_on, paths, key)
                checked = [*checked, paths]
    return notes


def _check_num_classes(
    model: Any, classes: Sequence[str] | None, where: str, key: str = "model"
) -> None:
    """Check that the head has one output per class, also in a detector inside another one.

    Raises:
        InputError: it has another number.
    """
    if not isinstance(model, Mapping):
        return
    for inner in ("detector", "module"):  # semi-supervised training; test-time augmentation
        _check_num_classes(model.get(inner), classes, where, f"{key}.{inner}")
    heads = {f"{key}.bbox_head": model.get("bbox_head")}
    roi = model.get("roi_head")
    heads[f"{key}.roi_head.bbox_head"] = roi.get("bbox_head") if isinstance(roi, Mapping) else None
    for name, head in list(heads.items()):
        for i, stage in enumerate(head if isinstance(head, (list, tuple)) else ()):
            heads[f"{name}.{i}"] = stage
    for name, head in heads.items():
        count = head.get("num_classes") if isinstance(head, Mapping) else None
        if classes and count is not None and count != len(classes):
            raise InputError(
                f"{name}.num_classes is {count}, but {where} has {len(classes)} classes "
                f"({shorten(classes, 6)}). Set --cfg-options {name}.num_classes={len(classes)}, or "
                f"give the dataset the metainfo of the {count} classes."
            )


def _check_dataset(
    data: Mapping, where: str, training: bool, annotated: bool, extra: str
) -> _Found:
    """Check the config of one dataset; raises InputError."""
    if not isinstance(data.get("ann_file"), (str, os.PathLike)) or not str(data["ann_file"]):
        return _Found()  # it reads no annotation file
    root = data.get("data_root") or ""
    path = osp.join(root, data["ann_file"])
    if is_remote(data.get("backend_args")) or "://" in path:
        return _Found([f"{where}: {path} is on remote storage and was not checked."])
    kind = find_type(data.get("type"), DATASETS)
    prefix = {
        k: osp.join(root, v)
        for k, v in (data.get("data_prefix") or {}).items()
        if isinstance(v, str)
    }
    if getattr(kind, "load_data_list", None) is XMLDataset.load_data_list:
        found, files = _check_xml(data, path, prefix.get("sub_data_root", root), where, extra)
    elif getattr(kind, "load_data_list", None) is CocoDataset.load_data_list:
        folder = prefix.get("img") or root
        with no_garbage_collection():
            found, files = _check_coco(data, path, folder, where, training, annotated, extra)
    elif osp.exists(path):
        return _Found()  # another format, which only its loader can check
    else:
        raise InputError(f"{where}: there is no annotation file {path} (data_root is {root!r}).")
    found.notes += check_images(files, where, data.get("pipeline"), training)
    found.images = [image for image, _ in files]
    return found


def _check_coco(
    data: Mapping, path: str, folder: str, where: str, training: bool, annotated: bool, extra: str
) -> tuple[_Found, list[ImageFile]]:
    """Check a dataset in COCO format; also returns the path and size of each image."""
    content = read_json(path, where, data.get("data_root") or "")
    images, annotations, categories = coco_parts(content, path, where, annotated)
    check_references(images, annotations, categories, path, where)
    files: list[ImageFile] = [
        (osp.join(folder, i["file_name"]), (i["width"], i["height"])) for i in images
    ]
    unlabelled = any(
        is_type(transform_class(step), LoadEmptyAnnotations, TRANSFORMS)
        for step in data.get("pipeline") or ()
        if isinstance(step, Mapping)
    )
    if training and unlabelled:
        note = f"{where}: the {len(images)} images of {path} are unlabelled (LoadEmptyAnnotations)."
        return _Found([Remark(note)], 0), files
    classes = dataset_classes(data) or ()
    found = _Found()
    if annotations or not training:  # without boxes there are no labels
        found.notes += check_categories(annotations, categories, classes, path, where, extra)
    if not training:
        found.file = CocoFile(
            where, path, images, annotations, categories, classes, data.get("indices")
        )
    if (training or annotated) and _own_parser(data) is CocoDataset.parse_data_info:
        wanted = {c["id"] for c in categories if c["name"] in classes}
        annotations = [a for a in annotations if a["category_id"] in wanted]
        report = check_boxes(images, annotations, where, path, training, data.get("filter_cfg"))
        found.notes += report.notes
        found.objects = report.objects
    return found, files


def _own_parser(data: Mapping) -> Callable:
    return find_type(data.get("type"), DATASETS).parse_data_info


def _check_xml(
    data: Mapping, path: str, folder: str, where: str, extra: str
) -> tuple[_Found, list[ImageFile]]:
    """Check a dataset in VOC format; also returns the path of each image."""
    if not osp.isfile(path):
        raise InputError(
            f"{where}: there is no list of images {path} (data_root is "
            f"{data.get('data_root')!r}). Set --cfg-options data_root=FOLDER."
        )
    ids = list_from_file(path)
    if not ids:
        raise InputError(f"{where}: {path} lists no images.")
    labels = osp.join(folder, data.get("ann_subdir", "Annotations"))
    images = osp.join(folder, data.get("img_subdir", "JPEGImages"))
    classes = dataset_classes(data) or ()
    notes, objects = check_voc(
        ids, lambda name: osp.join(labels, f"{name}.xml"), classes, where, extra
    )
    files: list[ImageFile] = [(osp.join(images, f"{name}.jpg"), None) for name in ids]
    return _Found(notes, objects), files
