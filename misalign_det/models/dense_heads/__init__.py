"""Dense heads: TripleHead and the loss-aware FCOS head it builds on."""

from .loss_aware_head import LossAwareFCOSHead
from .triple_head import TripleHead

__all__ = ['LossAwareFCOSHead', 'TripleHead']
