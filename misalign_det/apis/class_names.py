"""Find the class of each label of a detector whose detections are in a file."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mmdet.datasets  # noqa: F401  (registers them)
from mmdet.datasets.api_wrappers import COCO
from mmengine.config import Config

from ..engine.checkpoint import read_checkpoint
from ..errors import InputError
from ..utils import class_names, dataset_classes, leaf_datasets
from ..utils.text import shorten
from .config_lookup import resolve_config


def add_class_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes``, ``--config`` and ``--checkpoint``, which exclude one another.

    Args:
        parser: changed in place.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--classes", nargs="+", help="the detector's classes in its order")
    group.add_argument("--config", nargs="+", metavar="CONFIG",
                       help="take the classes from the detector's config")  # fmt: skip
    group.add_argument("--checkpoint", nargs="+", metavar="FILE",
                       help="take the classes from the detector's checkpoint")  # fmt: skip


def chosen_classes(
    args: argparse.Namespace, coco: COCO, detections: Sequence[list[dict]]
) -> tuple[str, ...]:
    """The detectors' classes: from the command line, else from the annotation file.

    Args:
        args: with the arguments of :func:`add_class_arguments`, and ``trust_checkpoint``.
        coco: annotations with which the detections are compared.
        detections: of each file on the command line.

    Returns:
        Class names in the order of the labels.

    Raises:
        InputError: the sources disagree or name no classes; or the annotation file lists the
            classes in another order, which mmdet's labels would follow; or no source is given and
            the file's categories may differ from the detector's classes.
    """
    if args.classes:
        return class_names(args.classes)
    sources = {path: classes_of_config(path) for path in args.config or ()}
    sources |= {path: classes_of_checkpoint(path, args.trust_checkpoint)
                for path in args.checkpoint or ()}  # fmt: skip
    if not sources:
        return classes_of_file(coco, detections)
    (first, classes), *others = sources.items()
    for path, theirs in others:
        if theirs != classes:
            raise InputError(
                f"{first} has the classes {shorten(classes)}, but {path} {shorten(theirs)}."
            )
    order = [c["name"] for c in coco.dataset["categories"] if c["name"] in classes]
    if sorted(order) == sorted(classes) and order != list(classes):
        raise InputError(
            f"the annotation file lists the classes as {shorten(order)}, {first} as "
            f"{shorten(classes)}. mmdet's labels follow the order of the file that was trained "
            "on: give --classes in that order."
        )
    return classes


def classes_of_config(config: str) -> tuple[str, ...]:
    """The classes in a config: of its test dataset, else validation, else training.

    Args:
        config: path, or name of a config of this package.

    Returns:
        Class names in the order of the labels.

    Raises:
        InputError: the config names none, or the parts of a dataset differ in theirs.
    """
    return configured_classes(Config.fromfile(resolve_config(config)), config)


def configured_classes(cfg: Config, name: str) -> tuple[str, ...]:
    """The classes in a config that has been read: see :func:`classes_of_config`.

    Args:
        cfg: the config.
        name: for messages.

    Raises:
        InputError: the config names none, or the parts of a dataset differ in theirs.
    """
    for split in ("test", "val", "train"):
        key = f"{split}_dataloader"
        data = (cfg.get(key) or {}).get("dataset") or {}
        found = [dataset_classes(leaf) for _, leaf in leaf_datasets(data, f"{key}.dataset")]
        lists = {classes for classes in found if classes is not None}
        if len(lists) > 1:
            raise InputError(f"{name}: the parts of {key}.dataset differ in their classes.")
        if lists:
            return lists.pop()
    raise InputError(f"{name} names no classes of a dataset. Give --classes.")


def classes_of_checkpoint(filename: str, trust: bool = False) -> tuple[str, ...]:
    """The classes that mmengine has saved in a checkpoint.

    Args:
        filename: file or URL.
        trust: load a file that contains more than tensors; its code then runs.

    Returns:
        Class names in the order of the labels.

    Raises:
        CheckpointError: the file is missing, damaged or refused.
        InputError: it names no classes.
    """
    classes = saved_classes(read_checkpoint(filename, trust))
    if not classes:
        raise InputError(f"{filename} names no classes. Give --classes or --config.")
    return classes


def saved_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes in a checkpoint that has been read; empty if there are none.

    Args:
        checkpoint: as mmengine saves it.
    """
    meta = checkpoint.get("meta") or {}
    # mmdet 2 wrote CLASSES.
    known = {str(k).lower(): v for k, v in (meta.get("dataset_meta") or meta).items()}
    return class_names(known.get("classes") or ())


def classes_of_file(coco: COCO, detections: Iterable[list[dict]]) -> tuple[str, ...]:
    """The categories of an annotation file, if they must be the detectors' classes.

    Training may leave categories out (Roboflow's supercategory has no object, others are skipped on
    purpose), and the labels after them then denote other classes. So every category must have an
    object, and the detections must include the last label.

    Args:
        coco: the annotations.
        detections: of each detector.

    Returns:
        Class names in the order of the labels.

    Raises:
        InputError: the categories may differ from the classes.
    """
    categories = coco.dataset["categories"]
    used = {a["category_id"] for a in coco.dataset.get("annotations", ())}
    without = [c["name"] for c in categories if c["id"] not in used]
    highest = max(
        (int(max(s["pred_instances"]["labels"])) for found in detections for s in found
         if len(s["pred_instances"]["labels"])), default=-1)  # fmt: skip
    if without:
        reason = f"the category {shorten(map(repr, without))} has no object"
    elif highest + 1 != len(categories):
        reason = f"there are {len(categories)} categories, and the highest label is {highest}"
    else:
        return tuple(c["name"] for c in categories)
    raise InputError(
        f"the detector's classes cannot be taken from the annotation file: {reason}, so a class "
        "may have been left out in training. Give --classes NAME ..., or --config CONFIG or "
        "--checkpoint FILE of the detector."
    )
