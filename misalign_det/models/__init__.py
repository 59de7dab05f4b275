"""Models: importing this package registers its heads and assigners with mmdet."""

from .backbones import EfficientNetLite0
from .dense_heads import (
    BoxVotingHead,
    BoxVotingMixin,
    DCATSSHead,
    DCFCOSHead,
    DCGFLHead,
    DCRetinaHead,
    FCOSHeadWithoutCenterness,
    LossAwareFCOSHead,
    RFAFCOSHead,
    RFAHead,
    TripleHead,
)
from .layers import RFAConv2d
from .losses import DCLoss
from .post_processing import CLBalancedNMS, box_voting, cl_balanced_nms
from .task_modules import IACAssigner, IACATSSAssigner, JLAAssigner, SpatialAlignAssigner

__all__ = [
    "BoxVotingHead",
    "BoxVotingMixin",
    "CLBalancedNMS",
    "DCATSSHead",
    "DCFCOSHead",
    "DCGFLHead",
    "DCLoss",
    "DCRetinaHead",
    "EfficientNetLite0",
    "FCOSHeadWithoutCenterness",
    "IACATSSAssigner",
    "IACAssigner",
    "JLAAssigner",
    "LossAwareFCOSHead",
    "RFAConv2d",
    "RFAFCOSHead",
    "RFAHead",
    "SpatialAlignAssigner",
    "TripleHead",
    "box_voting",
    "cl_balanced_nms",
]
