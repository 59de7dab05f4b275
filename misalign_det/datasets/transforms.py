"""Loading images of which some cannot be read."""

import logging
import os.path as osp
from collections.abc import Mapping
from typing import Any

import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log

from ..registry import TRANSFORMS as SCOPED_TRANSFORMS
from ..utils import find_type

_NAMED = 20  # so many files are named one by one; after that every hundredth, so logs stay short


# mmdet's analysis tools keep the steps of a pipeline whose `type` is mmcv's LoadImageFromFile or
# mmdet's LoadAnnotations and want two (`mmdet.datasets.get_loading_pipeline`). So this package has
# the same name in a scope of its own: `type` is what mmdet looks at, `_scope_` decides what is
# built.
@SCOPED_TRANSFORMS.register_module(name="LoadImageFromFile")
@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """mmcv's `LoadImageFromFile` for training: an unreadable image is counted and skipped.

    A file that is missing, empty or does not decode makes the transform return None, and mmdet's
    dataset draws another image in its place (at most `max_refetch` = 1000 times in a row, then it
    gives up, so a set without any readable image ends with an error). The log names the
    first files and always says how many times loading failed so far, over all workers of the
    process. Validation and test pipelines keep `LoadImageFromFile`: figures over a part of
    the images would mislead.

    Arguments are those of `LoadImageFromFile`. Two ways to name it; with the second one mmdet's
    tools that look for `LoadImageFromFile` find it, too.

    Example:
        train_pipeline = [
            dict(type='LoadImageOrSkip'), dict(type='LoadAnnotations', with_bbox=True)]
        train_pipeline = [
            dict(type='LoadImageFromFile', _scope_='misalign_det'),
            dict(type='LoadAnnotations', with_bbox=True)]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In shared memory, so that the workers of a dataloader count together.
        self.skipped = torch.zeros(1, dtype=torch.int64).share_memory_()

    def transform(self, results: dict) -> dict | None:
        """Load `results['img_path']`; None if that fails."""
        path = results["img_path"]
        try:
            return super().transform(results)
        except Exception as error:  # decoders raise whatever they like; mmcv an AssertionError
            self.skipped += 1
            count = int(self.skipped)
            if count <= _NAMED or count % 100 == 0:
                print_log(
                    f"Skipped image {path}: {_reason(path, error)}. Another image takes its place "
                    f"({count} skipped so far).",
                    logger="current",
                    level=logging.WARNING,
                )
            return None


def _reason(path: str, error: Exception) -> str:
    """Why loading failed, in words."""
    if "://" not in path:
        if not osp.exists(path):
            return "there is no such file"
        if osp.isfile(path) and osp.getsize(path) == 0:
            return "the file is empty"
    if isinstance(error, AssertionError):
        return "the file is not an image that can be decoded"
    return f"{type(error).__name__}: {error}"


def transform_class(step: Mapping) -> type | None:
    """The class that a step of a pipeline is built from.

    Args:
        step: config of a transform; its `type` may be a string, a scoped string or a
            class, and `_scope_` may name another registry than mmdet's.

    Returns:
        None where no registry knows it.
    """
    kind, scope = step.get("type"), step.get("_scope_")
    if not isinstance(kind, str) or scope is None:
        return find_type(kind, TRANSFORMS)
    with TRANSFORMS.switch_scope_and_registry(scope) as registry:
        return registry.get(kind)
