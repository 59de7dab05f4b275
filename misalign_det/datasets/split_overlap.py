"""Find images on which a detector is both trained and tested."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from ..utils.text import shorten

_SECONDS = 10.0  # for all files; what is found by then is reported


def check_overlap(train: Sequence[str], others: Sequence[str], where: str) -> list[str]:
    """Warn of images that are also in the training set, by path or as copies.

    Copies are files of the same bytes, under whatever name. They are searched for ten seconds.

    Args:
        train: paths of the images to train on.
        others: paths of the images to test on. All of them may be trained on by their own paths:
            a config that names the same images twice means it, and gets no note.
        where: config key of their dataset.

    Returns:
        At most one note.
    """
    names = {os.path.dirname(path) for path in (*train, *others)}
    folders = {name: os.path.realpath(name) for name in names}

    def place(path: str) -> tuple[str, str]:  # a link to an image is found as a copy
        return folders[os.path.dirname(path)], os.path.basename(path)

    known = set(map(place, train))
    pairs = [(path, path) for path in others if place(path) in known]
    if len(pairs) == len(others):
        return []
    same = {path for path, _ in pairs}
    pairs += _copies(train, [path for path in others if path not in same])
    if not pairs:
        return []
    shown = [path if path == copy else f"{path} (the same as {copy})" for path, copy in pairs]
    return [
        f"{where}: {len(pairs)} of {len(others)} images are trained on, too, so the results are "
        f"better than those on new images: {shorten(shown, 3)}. Take them out of one of the two."
    ]


def _copies(train: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a path to test on and one to train on whose files have the same bytes."""
    end = time.monotonic() + _SECONDS
    wanted = _by_size(others, end)
    pairs: list[tuple[str, str]] = []
    for size, paths in _by_size(train, end).items():
        if size not in wanted:
            continue
        digests = {digest: path for path, digest in _digests(paths, end)}
        pairs += [
            (path, digests[digest])
            for path, digest in _digests(wanted[size], end)
            if digest in digests
        ]
    return pairs


def _by_size(paths: Iterable[str], end: float) -> dict[int, list[str]]:
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        if time.monotonic() > end:
            break
        try:
            sizes[os.path.getsize(path)].append(path)
        except OSError:  # missing images are reported by their own check
            continue
    return sizes


def _digests(paths: Iterable[str], end: float) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if time.monotonic() > end:
            return
        try:
            with open(path, "rb") as file:
                yield path, blake2b(file.read()).digest()
        except OSError:
            continue
