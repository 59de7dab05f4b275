"""Load images, and check a dataset before a run."""

from .transforms import LoadImageOrSkip

__all__ = ["LoadImageOrSkip"]
