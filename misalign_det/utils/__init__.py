"""Utilities that every other part of the package may use."""

from .config_walk import walk
from .dataset_configs import class_names, dataset_classes, leaf_datasets
from .new_tensor import new_tensor_without_sync
from .registry import find_type, is_type
from .rgb_image import tensor_to_rgb_image, to_rgb_image
from .signatures import argument_names
from .triton_support import has_triton, launch

__all__ = [
    "argument_names",
    "to_rgb_image",
    "class_names",
    "dataset_classes",
    "find_type",
    "has_triton",
    "is_type",
    "launch",
    "leaf_datasets",
    "new_tensor_without_sync",
    "tensor_to_rgb_image",
    "walk",
]
