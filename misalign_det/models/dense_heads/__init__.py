"""Dense heads: TripleHead, RFAHead and the loss-aware FCOS head they build on."""

from .loss_aware_head import LossAwareFCOSHead
from .plain_fcos_head import FCOSHeadWithoutCenterness
from .rfa_head import RFAFCOSHead, RFAHead
from .triple_head import TripleHead

__all__ = [
    "FCOSHeadWithoutCenterness",
    "LossAwareFCOSHead",
    "RFAFCOSHead",
    "RFAHead",
    "TripleHead",
]
