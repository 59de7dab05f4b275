"""What every other part of the package may use."""

from .dataset_configs import leaf_datasets
from .registry import find_type, is_type

__all__ = ["find_type", "is_type", "leaf_datasets"]
