"""Loading images, and checks of a data set before a run."""

from .transforms import LoadImageOrSkip

__all__ = ["LoadImageOrSkip"]
