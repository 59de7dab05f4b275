"""The datasets inside a dataset's config, whatever wraps them, and their classes."""

import copy
from collections.abc import Iterator, Mapping, Sequence

from mmdet.registry import DATASETS

from .registry import find_type


def leaf_datasets(dataset: Mapping, key: str = "dataset") -> Iterator[tuple[str, Mapping]]:
    """Yield the configs of the datasets that read files, through wrappers of one or of many.

    Args:
        dataset: config of a dataset or of a wrapper (``RepeatDataset``, ``ConcatDataset``, ...).
        key: dotted key of ``dataset`` in the whole config.

    Yields:
        ``(key, config)`` of each innermost dataset; the config is the one inside ``dataset``, not
        a copy, so that a change reaches the whole config.

    Example:
        >>> inner = dict(type='CocoDataset', ann_file='a.json')
        >>> list(leaf_datasets(dict(type='RepeatDataset', times=2, dataset=inner), 'dataset'))
        [('dataset.dataset', {'type': 'CocoDataset', 'ann_file': 'a.json'})]
    """
    if isinstance(dataset.get("dataset"), Mapping):
        yield from leaf_datasets(dataset["dataset"], f"{key}.dataset")
    elif dataset.get("datasets"):
        for i, part in enumerate(dataset["datasets"]):
            yield from leaf_datasets(part, f"{key}.datasets.{i}")
    elif dataset:
        yield key, dataset


def class_names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Classes as a tuple: mmdet lets a single class stand as a string."""
    return (classes,) if isinstance(classes, str) else tuple(classes)


def dataset_classes(dataset: Mapping) -> tuple[str, ...] | None:
    """The classes that a dataset of this config has: those of its metainfo, or of its type.

    Args:
        dataset: config of a dataset that reads files; see :func:`leaf_datasets`.

    Returns:
        Their names, or ``None`` where it names none.
    """
    kind = find_type(dataset.get("type"), DATASETS)
    meta = copy.deepcopy(dataset.get("metainfo"))
    # The class knows its own names, and reads a file of names.
    meta = kind._load_metainfo(meta) if hasattr(kind, "_load_metainfo") else meta or {}
    return class_names(meta["classes"]) if meta.get("classes") else None
