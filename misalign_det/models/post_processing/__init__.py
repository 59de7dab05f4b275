"""Post-processing of detections: CLBalancedNMS and box voting."""

from .box_voting import box_voting
from .cl_balanced_nms import CLBalancedNMS, cl_balanced_nms

__all__ = ["CLBalancedNMS", "box_voting", "cl_balanced_nms"]
