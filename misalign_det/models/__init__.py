"""Models: importing this package registers its heads and assigners with mmdet."""

from .dense_heads import FCOSHeadWithoutCenterness, LossAwareFCOSHead, TripleHead
from .task_modules import JLAAssigner

__all__ = ["FCOSHeadWithoutCenterness", "JLAAssigner", "LossAwareFCOSHead", "TripleHead"]
