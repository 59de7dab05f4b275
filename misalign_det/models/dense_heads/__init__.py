"""Dense heads: TripleHead, RFAHead and the loss-aware FCOS head they build on."""

from .box_voting_head import BoxVotingHead, BoxVotingMixin
from .dc_heads import DCATSSHead, DCFCOSHead, DCGFLHead, DCRetinaHead
from .fcos_no_centerness_head import FCOSHeadWithoutCenterness
from .loss_aware_fcos_head import LossAwareFCOSHead
from .rfa_head import RFAFCOSHead, RFAHead
from .triple_head import TripleHead

__all__ = [
    "BoxVotingHead",
    "BoxVotingMixin",
    "DCATSSHead",
    "DCFCOSHead",
    "DCGFLHead",
    "DCRetinaHead",
    "FCOSHeadWithoutCenterness",
    "LossAwareFCOSHead",
    "RFAFCOSHead",
    "RFAHead",
    "TripleHead",
]
