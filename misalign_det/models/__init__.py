"""Models: importing this package registers its heads and assigners with mmdet."""

from .dense_heads import (
    FCOSHeadWithoutCenterness,
    LossAwareFCOSHead,
    RFAFCOSHead,
    RFAHead,
    TripleHead,
)
from .layers import RFAConv2d
from .post_processing import cl_balanced_nms
from .task_modules import JLAAssigner, SpatialAlignAssigner

__all__ = [
    "FCOSHeadWithoutCenterness",
    "JLAAssigner",
    "LossAwareFCOSHead",
    "RFAConv2d",
    "RFAFCOSHead",
    "RFAHead",
    "SpatialAlignAssigner",
    "TripleHead",
    "cl_balanced_nms",
]
