"""Label assignment: candidate pairs, joint loss, Gaussian mixture, and the assigners."""

from .iac_assigner import IACAssigner, IACATSSAssigner
from .jla_assigner import JLAAssigner
from .spatial_align_assigner import SpatialAlignAssigner

__all__ = ["IACATSSAssigner", "IACAssigner", "JLAAssigner", "SpatialAlignAssigner"]
