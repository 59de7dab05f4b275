"""Names of pictures that do not collide."""

import os.path as osp
from collections import Counter
from collections.abc import Sequence

from ..evaluation.dataset_annotations import image_paths


def picture_names(dataset) -> list[str]:
    """A name for a picture of each image of a dataset; see :func:`distinct_names`."""
    return distinct_names(image_paths(dataset))


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Names of files without folder and suffix, no two alike.

    Files in several folders keep the folders' names, those that differ in the suffix alone keep
    it, and what is still equal is numbered.

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
    """Equal names get the number of their repetition, from 2.

    Example:
        >>> numbered_apart(['a', 'b', 'a'])
        ['a', 'b', 'a_2']
    """
    given, apart = set(names), {}
    for name in names:
        number, candidate = 1, name
        while candidate in apart or (number > 1 and candidate in given):
            number += 1
            candidate = f"{name}_{number}"
        apart[candidate] = None
    return list(apart)
