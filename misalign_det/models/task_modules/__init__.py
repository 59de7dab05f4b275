"""Label assignment: candidate edges, losses, mixture, and the assigners built on them."""

from .jla_assigner import JLAAssigner
from .spatial_align_assigner import SpatialAlignAssigner

__all__ = ["JLAAssigner", "SpatialAlignAssigner"]
