"""Find images on which a detector is both trained and tested."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from ..utils.text import shorten
from .annotation_checks import Remark

_SECONDS = 10.0  # for all files; what is found by then is reported


def check_overlap(train: Sequence[str], others: Sequence[str], where: str) -> list[str]:
    """Warn of images that are also in the training set, by path or as copies.

    Copies are files of the same bytes, under whatever name. They are searched for ten seconds.

    Args:
        train: paths of the images to train on.
        others: paths of the images to test on.
        where: config key of their dataset.

    Returns:
        At most one note on images that both have, and one if there was no time for all.
    """
    names = {os.path.dirname(path) for path in (*train, *others)}
    folders = {name: os.path.realpath(name) for name in names}

    def place(path: str) -> tuple[str, str]:  # a link to an image is found as a copy
        return folders[os.path.dirname(path)], os.path.basename(path)

    known = set(map(place, train))
    pairs = [(path, path) for path in others if place(path) in known]
    same = {path for path, _ in pairs}
    copies, complete = _copies(train, [path for path in others if path not in same])
    pairs += copies
    notes: list[str] = []
    if pairs:
        shown = [path if path == copy else f"{path} (the same as {copy})" for path, copy in pairs]
        notes.append(
            f"{where}: {len(pairs)} of {len(others)} images are trained on, too, so the results "
            f"are better than those on new images: {shorten(shown, 3)}. Take them out of one of "
            "the two."
        )
    if not complete:
        notes.append(
            Remark(f"{where}: there was no time to compare all its images with those to train on.")
        )
    return notes


def _copies(train: Sequence[str], others: Sequence[str]) -> tuple[list[tuple[str, str]], bool]:
    """Pairs of a path to test on and one to train on whose files have the same bytes.

    Returns:
        The pairs, and whether there was time for all files.
    """
    end = time.monotonic() + _SECONDS
    pairs: list[tuple[str, str]] = []
    try:
        wanted = _by_size(others, end)
        same_size = _by_size(train, end)
        for size, paths in wanted.items():
            if size not in same_size:
                continue
            digests: dict[bytes, list[str]] = defaultdict(list)
            for path, digest in _digests(paths, end):
                digests[digest].append(path)
            for copy, digest in _digests(same_size[size], end):
                pairs += [(path, copy) for path in digests.pop(digest, ())]
                if not digests:
                    break
    except TimeoutError:
        return pairs, False
    return pairs, True


def _by_size(paths: Iterable[str], end: float) -> dict[int, list[str]]:
    sizes: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        _check_time(end)
        try:
            sizes[os.path.getsize(path)].append(path)
        except OSError:  # missing images are reported by their own check
            continue
    return sizes


def _digests(paths: Iterable[str], end: float) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        _check_time(end)
        try:
            with open(path, "rb") as file:
                yield path, blake2b(file.read()).digest()
        except OSError:
            continue


def _check_time(end: float) -> None:
    if time.monotonic() > end:
        raise TimeoutError
