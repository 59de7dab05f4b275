"""Figures about a detector's detections: misalignment, AP and its confidence interval."""

from .misalignment_metric import MisalignmentMetric
from .visdrone_metric import VisDroneMetric

__all__ = ["MisalignmentMetric", "VisDroneMetric"]
