"""Layers: deformable convolution with star offsets of a coarse box, or with its own (RFA)."""

from .deform_conv import (
    AutoDeformConv2d,
    auto_deform_conv2d,
    deform_levels,
    sampled_deform_conv2d,
    takes_all_levels,
)
from .rfa_conv import RFAConv2d, adapt_receptive_field, init_offsets
from .star_offsets import scale_gradient, star_dcn_offset
from .tower import run_tower

__all__ = [
    "AutoDeformConv2d",
    "RFAConv2d",
    "adapt_receptive_field",
    "auto_deform_conv2d",
    "deform_levels",
    "init_offsets",
    "run_tower",
    "sampled_deform_conv2d",
    "scale_gradient",
    "star_dcn_offset",
    "takes_all_levels",
]
