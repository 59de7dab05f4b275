"""Receptive fields of a head's branches (paper A, scale misalignment): computed and measured.

The paper's argument: f(R_l), the field of a branch on level l, is the same for classification and
regression, because both towers have the same kernels; each task would want its own. The effective
field, measured by gradients, shows what a trained network makes of it.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from ..errors import InputError
from ..models.layers import AutoDeformConv2d
from .dense_outputs import dense_head

BRANCHES = ("classification", "regression")
CUT = 1 - 0.9545  # share of the largest gradient that still counts, as in Luo et al. 2016


@dataclass
class ReceptiveField:
    """Of one branch at one level; lengths are sides of squares in pixels of the input.

    Attributes:
        branch: one of ``BRANCHES``.
        stride: of the level.
        feature: R_l, theoretical field of the pyramid's level that enters the head.
        theoretical: f(R_l), that of the branch's output.
        effective: root of the area where the gradient exceeds ``CUT`` of its maximum.
        gradient: mean absolute gradient around the location, largest value 1, ``(S, S)``.
    """

    branch: str
    stride: int
    feature: int
    theoretical: int
    effective: float
    gradient: np.ndarray


def head_kernels(head: nn.Module, channels: int) -> dict[str, int]:
    """Side of the square of feature cells that each branch's output reads, as its layers stand.

    Norms are left out (group norm reads the whole map), deformable layers keep their regular grid:
    this is the static f of paper A, ``f(R_l) = R_l + (side - 1) * stride``.
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


def feature_fields(model: nn.Module, width: int = 4096, channels: int = 3) -> list[int]:
    """R_l, the theoretical field of each level's feature map in pixels, for ``channels`` of input.

    Measured as the support of the gradient with every weight positive, on an image wide enough to
    hold it; a field wider than the image is cut to ``width``.
    """
    backbone, neck = _positive(model.backbone), _positive(model.neck)
    # The field is the same along both axes: a low, wide image is enough.
    image = torch.ones(1, channels, 128, width, requires_grad=True)
    fields = []
    for level in neck(backbone(image)):
        row, column = level.shape[-2] // 2, level.shape[-1] // 2
        (grad,) = torch.autograd.grad(level[0, :, row, column].sum(), image, retain_graph=True)
        fields.append(_extent(grad.abs().sum(dim=(0, 1, 2))))
    return fields


def effective_field(
    model: nn.Module, inputs: Tensor, centres: list[tuple[float, float]], radius: int = 192
) -> dict[tuple[str, int], np.ndarray]:
    """Sum of absolute input gradients of each branch at each level, around given points.

    Args:
        model: in eval mode, as trained.
        inputs: one preprocessed image, ``(1, channels, H, W)``.
        centres: points in pixels; each level's nearest location is read.
        radius: half the side of the window that is kept.

    Returns:
        ``{(branch, level): (2 radius, 2 radius)}``.
    """
    head = dense_head(model)
    inputs = inputs.detach().clone().requires_grad_()
    outs = head(model.extract_feat(inputs))[:2]
    strides = [s[0] if isinstance(s, tuple) else s for s in head.prior_generator.strides]
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
                place = (int((row + 0.5) * stride), int((column + 0.5) * stride))
                window = _window(grad[0].abs().sum(dim=0), place, radius)
                total += window / max(window.max(), 1e-12)
            windows[branch, i] = total
    return windows


def receptive_fields(model: nn.Module, images, radius: int = 192) -> list[ReceptiveField]:
    """Both kinds of field, for each branch and level.

    Args:
        model: one-stage detector in eval mode.
        images: iterable of ``(inputs, centres)``; see :func:`effective_field`.
        radius: half the side of the measured window.

    Raises:
        InputError: no image, or a head that :func:`~.dense_outputs.dense_head` refuses.
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
    strides = [s[0] if isinstance(s, tuple) else s for s in head.prior_generator.strides]
    fields = []
    for i, (stride, feature) in enumerate(zip(strides, features)):
        for branch in BRANCHES:
            # An untrained branch may not depend on the image yet (TripleHead's refinement).
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
    """One row a level, one column a branch: the mean gradient, and the effective square."""
    rows = len(fields) // 2
    fig = Figure(figsize=(7, 3.3 * rows + 0.6), layout="constrained")
    axes = fig.subplots(rows, 2, squeeze=False)
    for axis, field in zip(axes.flat, fields):
        half = len(field.gradient) // 2
        axis.imshow(np.sqrt(field.gradient), cmap="magma", extent=(-half, half, half, -half))
        side = field.effective
        axis.add_patch(Rectangle((-side / 2, -side / 2), side, side, fill=False, ec="cyan", lw=1.5))
        axis.set_title(
            f"{field.branch}, stride {field.stride}\n"
            f"effective {side:.0f} px, theoretical {field.theoretical} px",
            fontsize=9,
        )
        axis.tick_params(labelsize=7)
    fig.suptitle(title, fontsize=10)
    return fig


def _positive(module: nn.Module) -> nn.Module:
    """A copy whose outputs depend on every input that its layers can see, and whose gradients
    never cancel: positive weights, no norms, average for max pooling, regular sampling grids."""
    module = copy.deepcopy(module).cpu().float()
    module.eval()  # not chained: mmdet's ResNet returns nothing from it
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, AutoDeformConv2d):
                setattr(parent, name, _RegularGrid(child.in_channels, child.out_channels))
    for layer in module.modules():
        if isinstance(getattr(layer, "weight", None), Tensor):
            fan_in = max(1, layer.weight[0].numel())
            nn.init.constant_(layer.weight, 1.0 / fan_in)
        if isinstance(getattr(layer, "bias", None), Tensor):
            nn.init.zeros_(layer.bias)
    for layer in module.modules():  # RFAConv2d, and mmcv's layers in backbones
        if hasattr(layer, "conv_offset"):
            nn.init.zeros_(layer.conv_offset.weight)
    return module


class _RegularGrid(nn.Conv2d):
    """Stands for a deformable layer whose offsets come from outside."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return super().forward(x)


def _extent(profile: Tensor) -> int:
    """Length of the stretch where the profile is not zero."""
    place = (profile > 0).nonzero().squeeze(1)
    return int(place[-1] - place[0] + 1) if len(place) else 0


def _window(gradient: Tensor, centre: tuple[int, int], radius: int) -> np.ndarray:
    # A coarse level's last location may lie beyond the image.
    beyond = [max(0, place - size) for place, size in zip(centre, gradient.shape)]
    padded = np.pad(gradient.detach().cpu().numpy(), [(radius, radius + more) for more in beyond])
    row, column = centre
    return padded[row : row + 2 * radius, column : column + 2 * radius]
