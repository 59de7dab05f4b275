"""Losses: a dynamic coefficient around any of mmdet's classification losses."""

from .dc_loss import DCLoss
from .dynamic_coefficient import dynamic_coefficient, normalized_coefficient

__all__ = ["DCLoss", "dynamic_coefficient", "normalized_coefficient"]
