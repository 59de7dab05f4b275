"""Receptive fields of a head's branches: theoretical, and effective by gradients.

"Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object Detection" (arXiv
2112.08902) calls it scale misalignment that f(R_l), the receptive field of a branch on level l, is
the same for classification and regression, because both towers have the same kernels. The effective
field shows how far a trained network uses it.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from ..errors import InputError
from ..models.layers import AutoDeformConv2d
from .dense_outputs import dense_head, level_strides
from .figure_parts import EDGE, legend_below
from .palette import ORANGE, SKY_BLUE

BRANCHES = ("classification", "regression")
CUT = 1 - 0.9545  # least share of the largest gradient that counts (Luo et al., NeurIPS 2016)


@dataclass
class ReceptiveField:
    """One branch on one level; lengths are sides of squares in pixels of the network input.

    Attributes:
        branch: one of ``BRANCHES``.
        stride: of the level in pixels.
        feature: R_l, theoretical field of the feature map that enters the head.
        theoretical: f(R_l), theoretical field of the branch's output.
        effective: square root of the area where the gradient exceeds ``CUT`` times its maximum.
        gradient: mean absolute gradient around the location, scaled to a maximum of 1, ``(S, S)``.
    """

    branch: str
    stride: int
    feature: int
    theoretical: int
    effective: float
    gradient: np.ndarray


def head_kernels(head: BaseDenseHead, channels: int) -> dict[str, int]:
    """Side of the square of feature cells that each branch's output depends on.

    Normalisation is left out (group norm depends on the whole map), and deformable layers sample
    their regular grid: ``f(R_l) = R_l + (side - 1) * stride``.

    Args:
        head: from :func:`~.dense_outputs.dense_head`.
        channels: of the feature maps.

    Returns:
        Side in feature cells by branch.
    """
    head = _positive(head)
    size = 65  # farther than any head of 3x3 convolutions reaches
    sides = {}
    for branch, output in zip(BRANCHES, (0, 1)):
        levels = [
            torch.ones(1, channels, size, size, requires_grad=True)
            for _ in head.prior_generator.strides
        ]
        out = head(tuple(levels))[output][0]
        (grad,) = torch.autograd.grad(out[..., size // 2, size // 2].sum(), levels[0])
        sides[branch] = _extent(grad.abs().sum(dim=(0, 1, 2)))
    return sides


def feature_fields(model: SingleStageDetector, width: int = 4096, channels: int = 3) -> list[int]:
    """R_l, the theoretical receptive field of each level's feature map.

    It is the support of the gradient with positive weights.

    Args:
        model: one-stage detector with a neck.
        width: of the image that is used, in pixels; a wider field is cut to it.
        channels: of the network input.

    Returns:
        Side of the field in pixels per level.
    """
    backbone, neck = _positive(model.backbone), _positive(model.neck)
    # The field is the same along both axes: the image need not be high.
    image = torch.ones(1, channels, 128, width, requires_grad=True)
    fields = []
    for level in neck(backbone(image)):
        row, column = level.shape[-2] // 2, level.shape[-1] // 2
        (grad,) = torch.autograd.grad(level[0, :, row, column].sum(), image, retain_graph=True)
        fields.append(_extent(grad.abs().sum(dim=(0, 1, 2))))
    return fields


def effective_field(
    model: SingleStageDetector,
    inputs: Tensor,
    centres: Sequence[tuple[float, float]],
    radius: int = 192,
) -> dict[tuple[str, int], np.ndarray]:
    """Absolute input gradients of each branch on each level, summed over the given points.

    Args:
        model: one-stage detector in eval mode.
        inputs: one preprocessed image, ``(1, channels, H, W)``.
        centres: x and y in pixels of the network input; the nearest location of each level is used.
        radius: half the side of the window around a point, in pixels.

    Returns:
        ``{(branch, level): window}``, windows of ``(2 * radius, 2 * radius)``.

    Raises:
        InputError: a head that :func:`~.dense_outputs.dense_head` refuses.
    """
    head = dense_head(model)
    inputs = inputs.detach().clone().requires_grad_()
    outs = head(model.extract_feat(inputs))[:2]
    strides = level_strides(head)
    windows = {}
    for branch, levels in zip(BRANCHES, outs):
        for i, (level, stride) in enumerate(zip(levels, strides)):
            total = np.zeros((2 * radius, 2 * radius))
            for x, y in centres:
                row = min(int(y // stride), level.shape[-2] - 1)
                column = min(int(x // stride), level.shape[-1] - 1)
                (grad,) = torch.autograd.grad(
                    level[0, :, row, column].sum(), inputs, retain_graph=True
                )
                centre = (int((row + 0.5) * stride), int((column + 0.5) * stride))
                window = _window(grad[0].abs().sum(dim=0), centre, radius)
                total += window / max(window.max(), 1e-12)
            windows[branch, i] = total
    return windows


def receptive_fields(
    model: SingleStageDetector,
    images: Iterable[tuple[Tensor, Sequence[tuple[float, float]]]],
    radius: int = 192,
) -> list[ReceptiveField]:
    """Theoretical and effective receptive field of each branch on each level.

    Args:
        model: one-stage detector in eval mode.
        images: ``(inputs, centres)`` per image; see :func:`effective_field`.
        radius: half the side of the window of gradients, in pixels.

    Raises:
        InputError: there is no image, or :func:`~.dense_outputs.dense_head` refuses the model.
    """
    head = dense_head(model)
    sides = head_kernels(head, head.in_channels)
    totals: dict = {}
    channels = None
    for inputs, centres in images:
        channels = inputs.shape[1]
        for key, window in effective_field(model, inputs, centres, radius).items():
            totals[key] = totals.get(key, 0) + window
    if channels is None:
        raise InputError("there is no image to measure on")
    features = feature_fields(model, channels=channels)
    strides = level_strides(head)
    fields = []
    for i, (stride, feature) in enumerate(zip(strides, features)):
        for branch in BRANCHES:
            # An untrained branch may not depend on the image (TripleHead's refinement).
            gradient = totals[branch, i] / max(totals[branch, i].max(), 1e-12)
            fields.append(
                ReceptiveField(
                    branch=branch,
                    stride=stride,
                    feature=feature,
                    theoretical=feature + (sides[branch] - 1) * stride,
                    effective=float(np.sqrt((gradient > CUT).sum())),
                    gradient=gradient,
                )
            )
    return fields


def draw_receptive_fields(fields: list[ReceptiveField], title: str = "") -> Figure:
    """One row per level, one column per branch: the mean gradient, and both fields as squares.

    A theoretical field that is larger than the panel stands in its title alone.
    """
    rows = len(fields) // 2
    fig = Figure(figsize=(8.4, 3.7 * rows + 0.9), layout="constrained")
    axes = fig.subplots(rows, 2, squeeze=False)
    effective: dict[str, Any] = dict(color=SKY_BLUE, lw=2, path_effects=EDGE)
    theoretical: dict[str, Any] = dict(color=ORANGE, lw=2, ls="--", path_effects=EDGE)
    for axis, field in zip(axes.flat, fields):
        half = len(field.gradient) // 2
        shown = axis.imshow(
            np.sqrt(field.gradient), cmap="magma", extent=(-half, half, half, -half), vmin=0, vmax=1
        )
        for side, mark in ((field.theoretical, theoretical), (field.effective, effective)):
            axis.add_patch(Rectangle((-side / 2, -side / 2), side, side, fill=False, **mark))
        axis.set(xlim=(-half, half), ylim=(half, -half))
        axis.set_title(
            f"{field.branch}, stride {field.stride}\n"
            f"effective {field.effective:.0f} px, theoretical {field.theoretical} px",
            fontsize=9,
        )
        axis.tick_params(labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("pixels from the location", fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("pixels from the location", fontsize=8)
    fig.colorbar(shown, ax=axes, shrink=0.5, label="square root of the gradient over its maximum")
    marks = [("effective field", effective)]
    if any(field.theoretical < len(field.gradient) for field in fields):
        marks.append(("theoretical field, where it fits", theoretical))
    legend_below(fig, marks)
    fig.suptitle(title, fontsize=10)
    return fig


def _positive(module: nn.Module) -> nn.Module:
    """A copy whose gradients never cancel, so that they are positive on the whole receptive field.

    It has positive weights, no normalisation, no upper bound of activations, average instead of max
    pooling, and deformable layers that sample their regular grid.
    """
    module = copy.deepcopy(module).cpu().float()
    module.eval()  # not chained: mmdet's ResNet returns None here
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.Hardtanh):  # ReLU6, too: it has no gradient above its bound
                setattr(parent, name, nn.Identity())
            elif isinstance(child, AutoDeformConv2d):
                setattr(parent, name, _RegularGrid(child.in_channels, child.out_channels))
    for layer in module.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, Tensor):
            nn.init.constant_(weight, 1.0 / max(1, weight[0].numel()))
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
    for layer in module.modules():  # RFAConv2d, and mmcv's layers in backbones
        conv_offset = getattr(layer, "conv_offset", None)
        if conv_offset is not None:
            nn.init.zeros_(conv_offset.weight)
    return module


class _RegularGrid(nn.Module):
    """Replaces a deformable layer whose offsets are an argument; ignores them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return self.conv(x)


def _extent(profile: Tensor) -> int:
    """Distance from the first to the last positive value of the profile, both included."""
    positive = (profile > 0).nonzero().squeeze(1)
    return int(positive[-1] - positive[0] + 1) if len(positive) else 0


def _window(gradient: Tensor, centre: tuple[int, int], radius: int) -> np.ndarray:
    """The gradient ``(H, W)`` around a row and column, zero outside the image."""
    # The last location of a coarse level may lie beyond the image.
    beyond = [max(0, position - size) for position, size in zip(centre, gradient.shape)]
    padded = np.pad(gradient.detach().cpu().numpy(), [(radius, radius + more) for more in beyond])
    row, column = centre
    return padded[row : row + 2 * radius, column : column + 2 * radius]
