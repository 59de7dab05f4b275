"""The datasets inside a dataset's config, whatever wraps them."""

from collections.abc import Iterator, Mapping


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
