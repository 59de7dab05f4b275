"""A look at the input before training or testing: annotation files, images, class counts.

`tools/train.py` and `tools/test.py` call `check_config`. It reads each annotation file once, lists
the image folders, decodes a few images, and says at once what would otherwise come up hours later,
or never.
"""

import copy
import logging
import os
import os.path as osp

import mmcv
from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.registry import DATASETS
from mmengine.fileio import get, list_from_file
from mmengine.logging import print_log

from .annotation_checks import (
    InputError,
    Remark,
    check_boxes,
    check_categories,
    check_references,
    check_voc,
    coco_parts,
    no_garbage_collection,
    read_json,
    some,
)

__all__ = ["InputError", "check_config"]

_SAMPLES = 24  # images decoded per dataset, evenly spread


def check_config(cfg, modes=("train", "val")):
    """Check what a config is about to read.

    Only the first process of a distributed run checks; the others return at once.

    Args:
        cfg (mmengine.Config): a detection config. Its optional `preflight.extra_categories`,
            'error' (default) or 'skip', is for boxes of categories that are no class.
        modes (Sequence[str]): of 'train', 'val' and 'test', those that are to run.

    Returns:
        list[str]: notes on what is counted and skipped; they are logged, too, as warnings where
            something is left out.

    Raises:
        InputError: the input cannot be used. Every dataset is looked at first; one line a fault.

    Example:
        >>> from mmengine.config import Config
        >>> check_config(Config({'model': {}}), modes=('train', ))
        []
    """
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) != 0:
        return []
    notes, faults, seen = [], [], []
    extra = (cfg.get("preflight") or {}).get("extra_categories", "error")
    for mode in modes:
        loader = cfg.get(f"{mode}_dataloader") or {}
        evaluators = cfg.get(f"{mode}_evaluator") or []
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        annotated = not evaluators or not all(e.get("format_only") for e in evaluators)
        for where, data in _leaves(loader.get("dataset") or {}, f"{mode}_dataloader.dataset"):
            try:
                if (mode == "train", data) not in seen:  # val and test are often the same
                    seen.append((mode == "train", data))
                    notes += _check_dataset(data, where, mode == "train", annotated, extra)
                _check_num_classes(cfg.get("model") or {}, _classes(data), where)
            except InputError as error:
                faults.append(str(error))
        for evaluator in evaluators if mode != "train" else ():
            path = evaluator.get("ann_file")
            if isinstance(path, str) and "://" not in path and not osp.isfile(path):
                faults.append(f"{mode}_evaluator: there is no annotation file {path}. It must be "
                              "the dataset's (--cfg-options data_root=... moves both).")
    for note in notes:
        level = logging.INFO if isinstance(note, Remark) else logging.WARNING
        print_log(note, logger="current", level=level)
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    return notes


def _leaves(data, where):
    """The datasets inside wrappers (RepeatDataset, ConcatDataset, ...), and their config keys."""
    if data.get("dataset"):
        yield from _leaves(data["dataset"], f"{where}.dataset")
    elif data.get("datasets"):
        for i, part in enumerate(data["datasets"]):
            yield from _leaves(part, f"{where}.datasets.{i}")
    elif data.get("ann_file"):
        yield where, data


def _dataset_class(data):
    kind = data.get("type")
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def _classes(data):
    """The class names that a dataset config ends up with: a tuple, or None where it names none."""
    kind = _dataset_class(data)
    if not hasattr(kind, "_load_metainfo"):
        return None
    classes = kind._load_metainfo(copy.deepcopy(data.get("metainfo"))).get("classes")
    return (classes,) if isinstance(classes, str) else classes and tuple(classes)


def _check_num_classes(model, classes, where):
    """The head must have one output a class.

    Raises:
        InputError: it has another number.
    """
    roi = (model.get("roi_head") or {}).get("bbox_head")
    stages = enumerate(roi) if isinstance(roi, (list, tuple)) else ()
    heads = [("model.bbox_head", model.get("bbox_head")), ("model.roi_head.bbox_head", roi),
             *((f"model.roi_head.bbox_head.{i}", head) for i, head in stages)]
    for key, head in heads:
        count = head.get("num_classes") if isinstance(head, dict) else None
        if classes and count is not None and count != len(classes):
            raise InputError(
                f"{key}.num_classes is {count}, but {where} has {len(classes)} classes "
                f"({some(classes, 6)}). Set --cfg-options {key}.num_classes={len(classes)}, or "
                f"give the dataset the metainfo of the {count} classes.")


def _check_dataset(data, where, training, annotated, extra):
    """Notes on one dataset config; raises InputError."""
    root = data.get("data_root") or ""
    path = osp.join(root, data["ann_file"])
    if data.get("backend_args") or "://" in path:
        return [f"{where}: {path} is on remote storage and was not checked."]
    kind = _dataset_class(data)
    prefix = {k: osp.join(root, v) for k, v in (data.get("data_prefix") or {}).items()}
    skipped = training and any(
        str(step.get("type")).endswith("LoadImageOrSkip") for step in data.get("pipeline") or ())
    if isinstance(kind, type) and issubclass(kind, XMLDataset):
        folder = prefix.get("sub_data_root", root)
        notes, files = _check_xml(data, path, folder, where, extra)
    elif getattr(kind, "load_data_list", None) is CocoDataset.load_data_list:
        folder = prefix.get("img") or root
        with no_garbage_collection():
            notes, files = _check_coco(data, path, folder, where, training, annotated, extra)
    elif osp.exists(path):
        return []  # a format of its own: its loader is the one to judge it
    else:
        raise InputError(f"{where}: there is no annotation file {path} (data_root is {root!r}).")
    return notes + _check_images(files, where, skipped)


def _check_coco(data, path, folder, where, training, annotated, extra):
    """Notes, and (path, (width, height)) of each image."""
    content = read_json(path, where, data.get("data_root"))
    images, annotations, categories = coco_parts(content, path, where, annotated)
    check_references(images, annotations, categories, path, where)
    classes = _classes(data) or ()
    notes = check_categories(annotations, categories, classes, path, where, extra)
    if annotated:
        wanted = {c["id"] for c in categories if c["name"] in classes}
        annotations = [a for a in annotations if a["category_id"] in wanted]
        notes += check_boxes(images, annotations, where, path, training, data.get("filter_cfg"))
    return notes, [(osp.join(folder, i["file_name"]), (i["width"], i["height"])) for i in images]


def _check_xml(data, path, folder, where, extra):
    """Notes, and (path, None) of each image."""
    if not osp.isfile(path):
        raise InputError(f"{where}: there is no list of images {path} (data_root is "
                         f"{data.get('data_root')!r}). Set --cfg-options data_root=FOLDER.")
    ids = list_from_file(path)
    if not ids:
        raise InputError(f"{where}: {path} lists no images.")
    labels = osp.join(folder, data.get("ann_subdir", "Annotations"))
    images = osp.join(folder, data.get("img_subdir", "JPEGImages"))
    notes = check_voc(
        ids, lambda name: osp.join(labels, f"{name}.xml"), _classes(data) or (), where, extra)
    return notes, [(osp.join(images, f"{name}.jpg"), None) for name in ids]


def _check_images(files, where, skipped):
    """Whether the images are there and a sample of them decodes.

    Args:
        files (list[tuple]): path and (width, height) of each image; None where no size is stated.
        skipped (bool): whether the pipeline leaves unreadable images out.

    Returns:
        list[str]: notes on missing, unreadable and mis-sized images.

    Raises:
        InputError: images are missing or unreadable and would not be skipped, or all of them are.
    """
    names = {folder: _names(folder) for folder in {osp.dirname(path) for path, _ in files}}
    there, missing = [], []
    for path, stated in files:
        if osp.basename(path) in names[osp.dirname(path)]:
            there.append((path, stated))
        else:
            missing.append(path)
    if not there:
        raise InputError(f"{where}: none of the {len(files)} images is there; the first should be "
                         f"{missing[0]}. Check data_root and data_prefix.")
    sample = there[:: max(1, len(there) // _SAMPLES)][:_SAMPLES]
    looked = [(path, stated, _size(path)) for path, stated in sample]
    bad = [path for path, _, size in looked if size is None]
    if len(bad) == len(sample) and all(_size(path) is None for path, _ in there):
        raise InputError(f"{where}: none of the {len(there)} image files can be decoded, e.g. "
                         f"{bad[0]}. Are they images, and whole?")
    notes = []
    for paths, what in ((missing, f"of {len(files)} images are missing"),
                        (bad, f"of {len(sample)} images looked at cannot be decoded")):
        if paths:
            text = f"{where}: {len(paths)} {what}: {some(paths)}."
            if not skipped:
                raise InputError(f"{text} Restore them or take them out of the annotation file. "
                                 "(In training they are skipped if the pipeline begins with "
                                 "dict(type='LoadImageOrSkip').)")
            notes.append(f"{text} Training skips them.")
    odd = [f"{path} is {size[0]} x {size[1]}, not {stated[0]} x {stated[1]}"
           for path, stated, size in looked if size and stated and tuple(stated) != size]
    if odd:
        notes.append(f"{where}: {len(odd)} of {len(sample)} images looked at have another size "
                     f"than the annotation file says; boxes may be misplaced: {some(odd, 3)}.")
    return notes


def _names(folder):
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _size(path):
    """Width and height of an image as the pipeline sees it; None if it cannot be read."""
    try:
        height, width = mmcv.imfrombytes(get(path)).shape[:2]
    except Exception:  # decoders raise whatever they like, or return None
        return None
    return width, height
