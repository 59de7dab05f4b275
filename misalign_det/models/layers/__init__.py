"""Layers: deformable convolution in two forms, guided by a coarse box or by its own offsets."""

from .box_guidance import box_guided_offsets, scale_gradient
from .deform_conv import (
    AutoDeformConv2d,
    auto_deform_conv2d,
    deform_levels,
    sampled_deform_conv2d,
)
from .receptive_field import RFAConv2d, adapt_receptive_field, init_offsets

__all__ = [
    "AutoDeformConv2d",
    "RFAConv2d",
    "adapt_receptive_field",
    "auto_deform_conv2d",
    "box_guided_offsets",
    "deform_levels",
    "init_offsets",
    "sampled_deform_conv2d",
    "scale_gradient",
]
