"""The sampling points of a head's deformable layers, drawn over the image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmcv.ops import DeformConv2d
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from ..errors import InputError
from ..models.layers import RFAConv2d
from ..utils import to_rgb_image
from .dense_outputs import level_strides
from .figure_parts import OBJECT, OTHER_PEAK, legend_below, outline, show_image
from .palette import SKY_BLUE

GRID = torch.tensor([[row, column] for row in (-1.0, 0, 1) for column in (-1.0, 0, 1)])


@dataclass
class SamplingPoints:
    """The nine sampling points of one layer at one location.

    Attributes:
        layer: name of the layer in the head.
        points: x and y in pixels of the network input, ``(9, 2)``.
    """

    layer: str
    points: Tensor


@torch.no_grad()
def sampling_points(
    model: SingleStageDetector, inputs: Tensor, level: int, row: int, column: int
) -> list[SamplingPoints]:
    """The sampling points of every deformable layer of the head at one location of one level.

    Args:
        model: a one-stage detector whose head has layers ``RFAConv2d`` or mmcv's ``DeformConv2d``,
            as TripleHead and VFNet.
        inputs: one preprocessed image, ``(1, 3, H, W)``.
        level: index of the level, from the finest.
        row, column: of the location on this level.

    Raises:
        InputError: the head has no deformable layer.
    """
    head = model.bbox_head
    layers: dict[str, nn.Module] = {
        name: module
        for name, module in head.named_modules()
        if isinstance(module, (RFAConv2d, DeformConv2d))
    }
    if not layers:
        raise InputError(
            f"{type(head).__name__} has no deformable layer. RFAHead and TripleHead have some."
        )
    offsets: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [
        module.register_forward_hook(_keep(offsets[name])) for name, module in layers.items()
    ]
    try:
        head(model.extract_feat(inputs))
    finally:
        for handle in handles:
            handle.remove()
    strides = level_strides(head)
    center = torch.tensor([row + 0.5, column + 0.5])
    found = []
    for name, levels in offsets.items():
        taps = levels[level][0, :, row, column].view(9, 2).cpu().float()
        points = (center + GRID + taps).flip(1) * strides[level]
        found.append(SamplingPoints(name, points))
    return found


def _keep(kept: list[Tensor]) -> Callable[[Any, tuple[Tensor, ...], Any], None]:
    """A forward hook that keeps the offsets of each call; a head calls a layer once per level."""

    def hook(module: Any, args: tuple[Tensor, ...], output: Any) -> None:
        kept.append(module.offset_and_mask(args[0])[0] if len(args) == 1 else args[1])

    return hook


def draw_sampling_points(
    image: np.ndarray, bbox: Tensor, center: tuple[float, float], layers: list[SamplingPoints]
) -> Figure:
    """One panel per layer: the image, the GT, the location and the layer's nine points.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bbox: the GT, xyxy in the same pixels, ``(4,)``.
        center: x and y of the location in the same pixels.
        layers: from :func:`sampling_points`.
    """
    image = to_rgb_image(image)
    height, width = image.shape[:2]
    size = (5 * max(len(layers), 1) + 1, 5 * height / width + 0.9)
    fig = Figure(figsize=size, layout="constrained")
    location = dict(OTHER_PEAK, ms=13)
    point = dict(marker="o", color=SKY_BLUE, ms=6, mec="black", ls="none")
    for axis, layer in zip(fig.subplots(1, len(layers), squeeze=False)[0], layers):
        show_image(axis, image)
        outline(axis, bbox)
        axis.plot(*layer.points.T.numpy(), **point)
        axis.plot(*center, **location)
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.set_title(layer.layer, fontsize=9)
    legend_below(
        fig, [("object", OBJECT), ("location", location), ("sampling point of the layer", point)]
    )
    return fig
