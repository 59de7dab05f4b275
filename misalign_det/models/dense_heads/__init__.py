"""Dense heads: TripleHead and the loss-aware FCOS head it builds on."""

from .loss_aware_head import LossAwareFCOSHead
from .plain_fcos_head import FCOSHeadWithoutCenterness
from .triple_head import TripleHead

__all__ = ["FCOSHeadWithoutCenterness", "LossAwareFCOSHead", "TripleHead"]
