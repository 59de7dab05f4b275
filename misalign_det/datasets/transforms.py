"""Load images, and skip those that cannot be read."""

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

_NAMED = 20  # files logged one by one; after that every hundredth, so that logs stay short


# mmdet's analysis tools keep the steps of a pipeline whose `type` is mmcv's LoadImageFromFile or
# mmdet's LoadAnnotations, and require both (`mmdet.datasets.get_loading_pipeline`). So this package
# registers the same name in a scope of its own: mmdet reads `type`, and `_scope_` decides which
# class is built.
@SCOPED_TRANSFORMS.register_module(name="LoadImageFromFile")
@TRANSFORMS.register_module()
class LoadImageOrSkip(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` for training, which skips and counts unreadable images.

    For a file that is missing, empty or cannot be decoded, :meth:`transform` returns None, and
    mmdet's dataset draws another image (at most ``max_refetch`` = 1000 times in a row; then it
    raises an error). The log names the first 20 files, then every hundredth, and the number of
    failures so far over all workers of the process. Validation and test pipelines should keep
    ``LoadImageFromFile``, since figures on a part of the images would mislead.

    Args:
        *args: passed to mmcv's ``LoadImageFromFile``.
        **kwargs: passed to mmcv's ``LoadImageFromFile``.

    Attributes:
        skipped: number of failures, int64 ``(1,)`` in shared memory.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        train_pipeline = [
            dict(type='LoadImageOrSkip'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(1333, 800), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
        train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

    Tools of mmdet that search a pipeline for ``LoadImageFromFile`` find it under this name::

        dict(type='LoadImageFromFile', _scope_='misalign_det')
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In shared memory, so that all workers of a dataloader add to it.
        self.skipped = torch.zeros(1, dtype=torch.int64).share_memory_()

    def transform(self, results: dict) -> dict | None:
        """Load the image at ``results['img_path']``.

        Args:
            results: as for mmcv's ``LoadImageFromFile``.

        Returns:
            ``results`` with ``img`` ``(H, W, 3)`` and its shape; None if loading fails.
        """
        path = results["img_path"]
        try:
            return super().transform(results)
        except Exception as error:  # decoders raise errors of any type, mmcv an AssertionError
            self.skipped += 1
            count = int(self.skipped)
            if count <= _NAMED or count % 100 == 0:
                print_log(
                    f"Skipped image {path}: {_reason(path, error)}. Another image replaces it "
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
        step: config of a transform; its `type` may be a string, a scoped string or a class, and
            `_scope_` may name another registry than mmdet's.

    Returns:
        The class; None if no registry has it.
    """
    kind, scope = step.get("type"), step.get("_scope_")
    if not isinstance(kind, str) or scope is None:
        return find_type(kind, TRANSFORMS)
    with TRANSFORMS.switch_scope_and_registry(scope) as registry:
        return registry.get(kind)
