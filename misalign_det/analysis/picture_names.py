"""Distinct file names for pictures of images."""

import os.path as osp
from collections import Counter
from collections.abc import Sequence

from mmengine.dataset import BaseDataset

from ..evaluation.dataset_annotations import image_paths


def picture_names(dataset: BaseDataset) -> list[str]:
    """A file name, without suffix, per image of a dataset; see :func:`distinct_names`."""
    return distinct_names(image_paths(dataset))


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Names of files without folder and suffix, all different.

    Where the files are in several folders, the names contain the folders below the common one.
    Names that differ only in the suffix keep it, and equal names are numbered.

    Example:
        >>> distinct_names(['data/a.jpg', 'data/b.jpg'])
        ['a', 'b']
        >>> distinct_names(['data/cam0/0.jpg', 'data/cam1/0.jpg', 'data/cam1/0.png'])
        ['cam0_0', 'cam1_0_jpg', 'cam1_0_png']
    """
    paths = [osp.abspath(path) for path in paths]
    root = osp.commonpath([osp.dirname(path) for path in paths]) if paths else ""
    whole = [osp.relpath(path, root).replace(osp.sep, "_") for path in paths]
    names = [osp.splitext(path)[0] for path in whole]
    counts = Counter(names)
    return numbered_apart(
        [w.replace(".", "_") if counts[name] > 1 else name for w, name in zip(whole, names)]
    )


def numbered_apart(names: Sequence[str]) -> list[str]:
    """Number equal names from 2 on, so that all are different.

    Example:
        >>> numbered_apart(['a', 'b', 'a'])
        ['a', 'b', 'a_2']
    """
    given = set(names)
    apart: dict[str, None] = {}
    for name in names:
        number, candidate = 1, name
        while candidate in apart or (number > 1 and candidate in given):
            number += 1
            candidate = f"{name}_{number}"
        apart[candidate] = None
    return list(apart)
