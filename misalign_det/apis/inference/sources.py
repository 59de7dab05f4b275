"""What the inputs on a command line are: images, folders, globs, videos, webcams."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import mmcv
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

from ...errors import InputError

VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass
class Sources:
    """The files and cameras behind the inputs, each once, in the order of the inputs.

    Attributes:
        images: paths.
        videos: paths.
        webcams: numbers, as OpenCV counts them.
    """

    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    webcams: list[int] = field(default_factory=list)


def find_sources(inputs: Iterable[str], leave_out: str | None = None) -> Sources:
    """Sort inputs by what they are, and check that they can be read.

    Args:
        inputs: each an image, a video, a folder (its images and those of its subfolders, by name),
            a glob pattern (``**`` for any folders), or the number of a webcam.
        leave_out: a folder that is not read as a subfolder of an input, or by a pattern that
            matches other files too: where pictures are written.

    Returns:
        What was found. The images of a folder or a glob are not opened.

    Raises:
        InputError: an input does not exist, matches nothing, or cannot be read.

    Example:
        >>> find_sources(['no such file.jpg'])
        Traceback (most recent call last):
            ...
        misalign_det.errors.InputError: there is no file or folder 'no such file.jpg'.
    """
    found = Sources()
    for name in inputs:
        if os.path.isdir(name):
            _add(found.images, _images_below(name, leave_out))
        elif os.path.isfile(name):
            _add_file(found, name)
        elif name.isdecimal():
            _check_video(int(name), f"webcam {name} cannot be opened")
            _add(found.webcams, [int(name)])
        elif glob.has_magic(name):
            _add_matches(found, name, leave_out)
        else:
            raise InputError(f"there is no file or folder {name!r}.")
    return found


def read_image(path: str) -> np.ndarray | None:
    """An image ``(H, W, 3)``, uint8, BGR; None if it cannot be read as one.

    Args:
        path: of a file.
    """
    try:
        return mmcv.imread(path)
    except (cv2.error, OSError):  # an empty file, no permission
        return None


def _add(known: list, new: Iterable) -> None:
    known[:] = dict.fromkeys([*known, *new])


def _add_file(found: Sources, path: str) -> None:
    if path.lower().endswith(IMG_EXTENSIONS):
        if read_image(path) is None:
            raise InputError(f"{path} cannot be read as an image.")
        _add(found.images, [path])
    elif path.lower().endswith(VIDEO_EXTENSIONS):
        _check_video(path, f"{path} cannot be read as a video")
        _add(found.videos, [path])
    else:
        raise InputError(
            f"{path} is neither an image nor a video. Images end in {_list(IMG_EXTENSIONS)}, "
            f"videos in {_list(VIDEO_EXTENSIONS)}."
        )


def _add_matches(found: Sources, pattern: str, leave_out: str | None) -> None:
    matches = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    if leave_out:
        folder = os.path.join(os.path.realpath(leave_out), "")
        others = [path for path in matches if not os.path.realpath(path).startswith(folder)]
        matches = others or matches  # a pattern that names this folder means its files
    images = [path for path in matches if path.lower().endswith(IMG_EXTENSIONS)]
    videos = [path for path in matches if path.lower().endswith(VIDEO_EXTENSIONS)]
    if not images and not videos:
        raise InputError(f"{pattern!r} matches no image or video ({len(matches)} files match).")
    for path in videos:
        _check_video(path, f"{path} cannot be read as a video")
    _add(found.images, images)
    _add(found.videos, videos)


def _images_below(folder: str, leave_out: str | None = None) -> list[str]:
    seen = {os.path.realpath(leave_out)} if leave_out else set()
    seen.discard(os.path.realpath(folder))
    paths = []
    for place, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:  # a folder that is linked into itself is read once
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        paths += [os.path.join(place, n) for n in names if n.lower().endswith(IMG_EXTENSIONS)]
    paths.sort()
    if not paths:
        raise InputError(
            f"the folder {folder} and its subfolders have no image ({_list(IMG_EXTENSIONS)}). "
            "Videos are given by name."
        )
    return paths


def _check_video(source: str | int, message: str) -> None:
    capture = cv2.VideoCapture(source)
    readable = capture.isOpened() and capture.read()[0]
    capture.release()
    if not readable:
        raise InputError(f"{message}.")


def _list(extensions: Sequence[str]) -> str:
    return ", ".join(extensions)
