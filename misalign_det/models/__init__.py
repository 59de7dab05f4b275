"""Models: importing this package registers its heads and assigners with mmdet."""

from .dense_heads import LossAwareFCOSHead, TripleHead
from .task_modules import JLAAssigner

__all__ = ['JLAAssigner', 'LossAwareFCOSHead', 'TripleHead']
