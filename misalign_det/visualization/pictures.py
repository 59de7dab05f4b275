"""What the pictures share: pixels that can be drawn on, and names that do not collide."""

import os.path as osp
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..evaluation.dataset_annotations import image_paths


def as_picture(image: np.ndarray) -> np.ndarray:
    """Pixels of any type and number of channels as uint8 RGB, ``(h, w, 3)``.

    Floats are read as 0 to 1 where none exceeds 1, else as 0 to 255; where they leave that range
    (normalised pixels, integers of more than eight bits) black is the least and white the largest.
    One channel, or two, is shown in grey (the first); of more than three, the first three.

    Args:
        image: ``(h, w)`` or ``(h, w, n)``.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    if image.dtype != np.uint8:
        values = np.nan_to_num(image.astype(np.float64))
        low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
        whole = not np.issubdtype(image.dtype, np.floating)
        if low < 0 or high > 255:
            values = (values - low) * (255 / max(high - low, 1e-12))
        elif high <= 1 and not whole:
            values = values * 255
        image = values.round().astype(np.uint8)
    return np.ascontiguousarray(image)


def picture_names(dataset) -> list[str]:
    """A name for a picture of each image of a data set; see :func:`distinct_names`."""
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
