"""Fill the data of a folder into a config: datasets, evaluators, numbers of classes."""

import copy
from collections.abc import Mapping
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric, DumpDetResults, VOCMetric
from mmdet.registry import METRICS, MODELS
from mmdet.visualization import get_palette
from mmengine.config import Config

from ...datasets.evaluator_checks import metrics
from ...errors import InputError
from ...evaluation.misalignment_metric import MisalignmentMetric
from ...utils import argument_names, dataset_classes, find_type, is_type, leaf_datasets, walk
from .conversion import ConvertedData

# Keys of a dataset that say how images are read, not which.
_KEPT = ("pipeline", "test_mode", "filter_cfg", "backend_args", "serialize_data", "lazy_init",
         "max_refetch", "indices")  # fmt: skip
# Parts of a model whose num_classes is not the number of the data's classes.
_OTHER_CLASSES = {"backbone", "neck", "rpn_head", "semantic_head", "data_preprocessor"}
_METRICS = (CocoMetric, VOCMetric, MisalignmentMetric, DumpDetResults)


def config_classes(cfg: Config) -> tuple[str, ...] | None:
    """The classes of a config's first dataset that has any.

    Args:
        cfg: a detection config.
    """
    for split in ("train", "val", "test"):
        dataset = (cfg.get(f"{split}_dataloader") or {}).get("dataset") or {}
        for _, leaf in leaf_datasets(dataset):
            if classes := dataset_classes(leaf):
                return classes
    return None


def fill_config(cfg: Config, data: ConvertedData) -> None:
    """Make a config read other data; pipelines, wrappers, batch sizes and metrics stay.

    Args:
        cfg: changed in place.
        data: from :func:`~.conversion.convert`.

    Raises:
        InputError: a dataset or metric of the config cannot be replaced.
    """
    for split, ann_file in data.ann_files.items():
        loader = cfg.get(f"{split}_dataloader")
        if not loader:
            continue
        key = f"{split}_dataloader.dataset"
        own = dict(
            type="CocoDataset",
            data_root=f"{data.root}/",
            ann_file=ann_file,
            data_prefix=dict(img=data.image_folders[split]),
            metainfo=_metainfo(data),
        )
        loader["dataset"] = _replaced(loader["dataset"], own, key, data.converted)
        for name, metric, number in metrics(cfg.get(f"{split}_evaluator"), f"{split}_evaluator"):
            if number is not None or not is_type(metric.get("type"), _METRICS, METRICS):
                raise InputError(
                    f"--data: {name} is {_name(metric)}, which evaluates the config's own data. "
                    "Take a config with CocoMetric."
                )
            if "ann_file" in metric:
                metric["ann_file"] = ann_file  # type: ignore[index]  # a ConfigDict
    _set_num_classes(cfg.get("model"), len(data.classes))
    for name, value in (
        ("data_root", f"{data.root}/"),
        ("dataset_type", "CocoDataset"),
        ("metainfo", _metainfo(data)),
    ):
        if name in cfg:
            cfg[name] = value


def _metainfo(data: ConvertedData) -> dict[str, Any]:
    meta: dict[str, Any] = dict(classes=tuple(data.classes))
    if len(data.classes) > len(CocoDataset.METAINFO["palette"]):  # else mmdet takes those colours
        meta["palette"] = get_palette("random", len(data.classes))
    return meta


def _replaced(dataset: Mapping, own: Mapping[str, Any], key: str, boxes_only: bool) -> dict:
    """A dataset's config with other files, in the same wrappers.

    Several datasets that a wrapper joins become one, if they have the same pipeline.
    """
    if isinstance(dataset.get("dataset"), Mapping):
        inner = _replaced(dataset["dataset"], own, f"{key}.dataset", boxes_only)
        return {**dataset, "dataset": inner}
    leaves = [leaf for _, leaf in leaf_datasets(dataset, key)]
    kept = [{name: leaf[name] for name in _KEPT if name in leaf} for leaf in leaves]
    if any(part != kept[0] for part in kept):
        raise InputError(
            f"--data: the parts of {key} differ in more than their files ({_name(dataset)}), and "
            "one folder cannot replace them. Take a config with one dataset."
        )
    steps = [
        value for _, value in walk(kept[0].get("pipeline") or []) if isinstance(value, Mapping)
    ]
    if boxes_only and any(step.get("with_mask") or step.get("with_seg") for step in steps):
        raise InputError(
            f"--data: {key}.pipeline loads masks, and the annotations of the folder are boxes. "
            "Take a config of a box detector."
        )
    return {**copy.deepcopy(kept[0]), **copy.deepcopy(dict(own))}


def _set_num_classes(model: Any, number: int) -> None:
    """Set ``num_classes`` of every head and loss of a model, also where a head leaves it out."""
    for key, part in [("", model), *walk(model)]:
        words = key.split(".")
        if not isinstance(part, Mapping) or _OTHER_CLASSES & set(words):
            continue
        head = "bbox_head" in words[-2:] and "type" in part
        kind = find_type(part["type"], MODELS) if head else None
        if "num_classes" in part or (kind and "num_classes" in argument_names(kind)[0]):
            part["num_classes"] = number  # type: ignore[index]  # a ConfigDict


def _name(part: Mapping) -> str:
    kind = part.get("type")
    return str(getattr(kind, "__name__", kind))
