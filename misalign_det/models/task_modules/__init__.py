"""Label assignment: the assigners that a config names. The rest lies in ``assigners``."""

from .assigners import IACAssigner, IACATSSAssigner, JLAAssigner, SpatialAlignAssigner

__all__ = ["IACAssigner", "IACATSSAssigner", "JLAAssigner", "SpatialAlignAssigner"]
