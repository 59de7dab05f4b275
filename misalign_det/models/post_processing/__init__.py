"""Post-processing of detections: CLBalancedNMS."""

from .cl_balanced_nms import CLBalancedNMS, cl_balanced_nms

__all__ = ["CLBalancedNMS", "cl_balanced_nms"]
