"""Layers: deformable convolution in two forms, and sampling guided by a coarse box."""

from .box_guidance import box_guided_offsets, scale_gradient
from .deform_conv import AutoDeformConv2d, sampled_deform_conv2d

__all__ = ["AutoDeformConv2d", "box_guided_offsets", "sampled_deform_conv2d", "scale_gradient"]
