"""Figures about a detector's detections: misalignment, AP and its confidence interval."""

from .misalignment_metric import MisalignmentMetric

__all__ = ["MisalignmentMetric"]
