"""The datasets inside a dataset's config, through any wrappers, and their classes."""

import copy
from collections.abc import Iterator, Mapping, Sequence

from mmdet.registry import DATASETS

from .registry import find_type


def leaf_datasets(dataset: Mapping, key: str = "dataset") -> Iterator[tuple[str, Mapping]]:
    """Yield the configs of the datasets that read files, through wrappers of one or several.

    Args:
        dataset: config of a dataset or of a wrapper (``RepeatDataset``, ``ConcatDataset``, ...).
        key: dotted key of ``dataset`` in the whole config.

    Yields:
        ``(key, config)`` of each innermost dataset. The config is the one inside ``dataset``, not a
        copy, so that it can be changed in place.

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
    """Classes as a tuple. In mmdet's configs a single class may be a plain string."""
    return (classes,) if isinstance(classes, str) else tuple(classes)


def dataset_classes(dataset: Mapping) -> tuple[str, ...] | None:
    """The classes of a dataset: those of its config's metainfo, or of its type.

    Args:
        dataset: config of a dataset that reads files; see :func:`leaf_datasets`.

    Returns:
        Their names, or ``None`` if neither has any.
    """
    kind = find_type(dataset.get("type"), DATASETS)
    meta = copy.deepcopy(dataset.get("metainfo"))
    # The dataset's class knows its own names, and reads metainfo from a file.
    meta = kind._load_metainfo(meta) if hasattr(kind, "_load_metainfo") else meta or {}
    return class_names(meta["classes"]) if meta.get("classes") else None
