"""What every other part of the package may use."""

from .registry import find_type, is_type

__all__ = ["find_type", "is_type"]
