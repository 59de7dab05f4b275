"""What every other part of the package may use."""

from .config_walk import walk
from .dataset_configs import class_names, dataset_classes, leaf_datasets
from .device_numbers import numbers_made_on_device
from .pixels import as_picture, to_picture
from .registry import find_type, is_type
from .signatures import argument_names
from .triton_support import has_triton, launch

__all__ = [
    "argument_names",
    "as_picture",
    "class_names",
    "dataset_classes",
    "find_type",
    "has_triton",
    "is_type",
    "launch",
    "leaf_datasets",
    "numbers_made_on_device",
    "to_picture",
    "walk",
]
