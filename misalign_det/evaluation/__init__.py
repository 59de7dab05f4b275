"""Measuring misalignment in a detector's results."""

from .misalignment_metric import MisalignmentMetric

__all__ = ["MisalignmentMetric"]
