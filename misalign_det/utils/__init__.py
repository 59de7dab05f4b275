"""What every other part of the package may use."""

from .dataset_configs import leaf_datasets
from .pixels import as_picture, to_picture
from .registry import find_type, is_type

__all__ = ["as_picture", "find_type", "is_type", "leaf_datasets", "to_picture"]
