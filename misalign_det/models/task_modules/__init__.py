"""Label assignment: candidate edges, losses, mixture, and the assigners built on them."""

from .assigners.iac_assigner import IACAssigner, IACATSSAssigner
from .assigners.jla_assigner import JLAAssigner
from .assigners.spatial_align_assigner import SpatialAlignAssigner

__all__ = ["IACAssigner", "IACATSSAssigner", "JLAAssigner", "SpatialAlignAssigner"]
