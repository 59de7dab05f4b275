"""Layers: deformable convolution in two forms, guided by a coarse box or by its own offsets."""

from .deform_conv import (
    AutoDeformConv2d,
    auto_deform_conv2d,
    deform_levels,
    sampled_deform_conv2d,
    takes_all_levels,
)
from .rfa_conv import RFAConv2d, adapt_receptive_field, init_offsets, run_tower
from .star_offsets import scale_gradient, star_dcn_offset

__all__ = [
    "AutoDeformConv2d",
    "RFAConv2d",
    "adapt_receptive_field",
    "auto_deform_conv2d",
    "star_dcn_offset",
    "deform_levels",
    "init_offsets",
    "run_tower",
    "sampled_deform_conv2d",
    "scale_gradient",
    "takes_all_levels",
]
