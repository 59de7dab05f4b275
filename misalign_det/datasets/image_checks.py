"""Check that the images of a dataset exist and can be loaded by its pipeline."""

import os
import os.path as osp
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.image import rescale_size
from mmcv.transforms import LoadImageFromFile, Resize
from mmdet.registry import TRANSFORMS

from ..errors import InputError
from ..utils import is_type
from ..utils.text import shorten
from .annotation_checks import Remark, is_remote
from .transforms import LoadImageOrSkip, transform_class

ImageFile = tuple[str, tuple[int, int] | None]  # path, and (width, height) where it is stated

_SAMPLES = 24  # images loaded per dataset, evenly spread
_SECONDS = 10.0  # for loading the others, where an image that does not load stops the run
_NOT_LOADED = re.compile(r"failed to load image: (.+)")  # an AssertionError of mmcv's
_SKIP = "(In training they are skipped if the pipeline begins with dict(type='LoadImageOrSkip').)"


class Loader:
    """The first step of a pipeline, run alone.

    Args:
        pipeline: of a dataset's config.

    Attributes:
        known: whether it loads as mmcv's `LoadImageFromFile` does. Any other step may read other
            files, or may need what an earlier step returns.
        skips: whether it leaves out images that it cannot load (`LoadImageOrSkip`).
        remote: whether it reads through a storage backend.
    """

    def __init__(self, pipeline: Sequence[Mapping] | None) -> None:
        step = next(iter(pipeline or ()), None)
        step = step if isinstance(step, Mapping) else {}
        kind = transform_class(step)
        self.known = getattr(kind, "transform", None) in (
            LoadImageFromFile.transform,
            LoadImageOrSkip.transform,
        )
        self.skips = is_type(kind, LoadImageOrSkip, TRANSFORMS)
        self.remote = is_remote(step.get("backend_args") or step.get("file_client_args"))
        self._step = step
        self._transform: Any = None

    def __call__(self, path: str) -> tuple[tuple[int, int] | None, str | None]:
        """Load an image.

        Args:
            path: of the image.

        Returns:
            (width, height), or None if it cannot be loaded; and the reason, or None if the step
            leaves such an image out without an error.
        """
        try:
            if self._transform is None:
                self._transform = TRANSFORMS.build(dict(self._step))
            results = self._load({"img_path": path, "img_id": 0, "instances": []})
            if results is None:
                return None, None
            height, width = np.shape(results["img"])[:2]
            return (int(width), int(height)), None
        except Exception as error:  # decoders and transforms raise errors of any type
            return None, f"{type(error).__name__}: {error}"

    def _load(self, results: dict) -> dict | None:
        if type(self._transform).transform is LoadImageOrSkip.transform:
            return LoadImageFromFile.transform(self._transform, results)  # raises, and logs nothing
        return self._transform(results)


def check_images(
    files: Sequence[ImageFile], where: str, pipeline: Sequence[Mapping] | None, training: bool
) -> list[str]:
    """Check that the images exist and can be loaded.

    A sample is loaded; and, unless the loader leaves out what it cannot load, as many of the others
    as ten seconds allow, since the run stops where it comes to an image that does not load.

    Args:
        files: path and (width, height) of each image; None where the annotations state no size.
        where: config key of the dataset.
        pipeline: of the dataset. Images are loaded by its first step; if that is not a loader that
            can run alone, they are not checked.
        training: whether images that the loader leaves out are replaced by others.

    Returns:
        Notes on missing and unreadable images, and on images of another size than stated.

    Raises:
        InputError: images are missing or unreadable and would not be skipped, or all of them are;
            or images of val or test are too narrow to be resized.
    """
    loader = Loader(pipeline)
    if loader.remote:
        return [Remark(f"{where}: its images are on remote storage and were not checked.")]
    names = {folder: _names(folder) for folder in {osp.dirname(path) for path, _ in files}}
    there: Sequence[ImageFile] = [
        f for f in files if osp.basename(f[0]) in names[osp.dirname(f[0])]
    ]
    if not loader.known:
        sample = _spread(there or files)
        if all(loader(path)[0] is None for path, _ in sample):
            return []  # not a loader, or one that needs the output of an earlier step
        if not there:
            there = files  # it finds its files by other paths
    present = {path for path, _ in there}
    missing = [path for path, _ in files if path not in present]
    if not there:
        raise InputError(
            f"{where}: none of the {len(files)} images exists; the first should be "
            f"{missing[0]}. Check data_root and data_prefix."
        )
    sample = _spread(there)
    loaded = [(path, stated, *loader(path)) for path, stated in sample]
    if not (training and loader.skips):
        loaded += _load_others(loader, there, sample)
    bad = [(path, why) for path, _, size, why in loaded if size is None]
    if len(bad) == len(loaded) and all(loader(path)[0] is None for path, _ in there):
        raise InputError(
            f"{where}: none of the {len(there)} image files can be decoded, e.g. "
            f"{bad[0][0]} ({bad[0][1]}). Are they complete image files?"
        )
    notes = []
    for paths, reasons, what in (
        (missing, [loader(path)[1] for path in missing[:1]], f"of {len(files)} images are missing"),
        (
            [path for path, _ in bad],
            [why for _, why in bad],
            f"of {len(loaded)} images tested cannot be decoded",
        ),
    ):
        if paths:
            text = f"{where}: {len(paths)} {what}: {shorten(paths)}."
            if not training or (not loader.skips and any(reasons)):
                raise InputError(
                    f"{text} Restore them or take them out of the annotation file. {_SKIP}"
                )
            notes.append(f"{text} Training skips them.")
    sizes = dict(there) | {path: size for path, _, size, _ in loaded if size}
    narrow = [path for path, size in sizes.items() if size and _vanishes(size, pipeline)]
    if narrow and not training:  # which leaves out small images, by `filter_cfg.min_size`
        raise InputError(
            f"{where}: {len(narrow)} of {len(there)} images are so narrow that Resize leaves them "
            f"no pixel of width or height: {shorten(narrow)}. Take them out of the annotation file."
        )
    return notes + _mis_sized(loaded, where)


def _vanishes(size: tuple[int, int], pipeline: Sequence[Mapping] | None) -> bool:
    """Whether a `Resize` of the pipeline makes a side of an image shorter than half a pixel."""
    for step in pipeline or ():
        scale = step.get("scale") if isinstance(step, Mapping) and step.get("keep_ratio") else None
        if isinstance(scale, (tuple, list)) and is_type(transform_class(step), Resize, TRANSFORMS):
            return min(rescale_size(size, tuple(scale))) < 1
    return False


def _load_others(
    loader: Loader, files: Sequence[ImageFile], sample: Sequence[ImageFile]
) -> list[tuple]:
    """Load the images that are not in the sample, for `_SECONDS` at most."""
    tested = {path for path, _ in sample}
    loaded: list[tuple] = []
    end = time.monotonic() + _SECONDS
    for path, stated in files:
        if time.monotonic() > end:
            break
        if path not in tested:
            loaded.append((path, stated, *loader(path)))
    return loaded


def explain_load_error(error: BaseException) -> str | None:
    """What to do about an image that validation or a test could not load.

    Args:
        error: as the run raised it, perhaps in a process of the dataloader.

    Returns:
        A message that names the image; None if the error is another one.
    """
    found = _NOT_LOADED.findall(str(error)) if isinstance(error, AssertionError) else []
    if not found:
        return None
    return (  # the last one: before it the dataloader quotes the line of code
        f"{found[-1]} cannot be decoded. Is it a complete image file? Restore it or take it out of "
        "the annotation file, then run again, a training with --resume."
    )


def _mis_sized(loaded: Sequence[tuple], where: str) -> list[str]:
    odd = [
        f"{path} is {size[0]} x {size[1]}, not {stated[0]} x {stated[1]}"
        for path, stated, size, _ in loaded
        if size and stated and tuple(stated) != size
    ]
    if not odd:
        return []
    return [
        f"{where}: {len(odd)} of {len(loaded)} images tested have another size than the "
        f"annotation file says; boxes may be misplaced: {shorten(odd, 3)}."
    ]


def _spread(files: Sequence[ImageFile]) -> Sequence[ImageFile]:
    """At most `_SAMPLES` of many, evenly spread."""
    return files[:: max(1, len(files) // _SAMPLES)][:_SAMPLES]


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
