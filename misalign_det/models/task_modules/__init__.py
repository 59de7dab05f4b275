"""Label assignment: candidate edges, losses, mixture, and the assigners built on them."""

from .iac_assigner import IACAssigner, IACATSSAssigner
from .jla_assigner import JLAAssigner
from .spatial_align_assigner import SpatialAlignAssigner

__all__ = ["IACAssigner", "IACATSSAssigner", "JLAAssigner", "SpatialAlignAssigner"]
