"""Losses: paper C's coefficient around any classification loss."""

from .dc_loss import DCLoss, dynamic_coefficient, normalized_coefficient

__all__ = ["DCLoss", "dynamic_coefficient", "normalized_coefficient"]
