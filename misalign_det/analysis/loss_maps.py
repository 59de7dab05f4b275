"""Maps of classification and regression loss towards one GT, side by side.

As in the spatial analysis of "Toward Minimal Misalignment at Minimal Cost in One-Stage and
Anchor-Free Object Detection" (arXiv 2112.08902): locations with a small classification loss and
locations with a small regression loss lie apart. SpatialAlignAssigner and JLAAssigner reduce this
spatial misalignment.
"""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from ..models.task_modules.assigners.candidates import BatchGroundTruth, CandidatePairs
from ..models.task_modules.assigners.joint_loss import pair_losses
from ..utils import to_rgb_image
from .dense_outputs import DenseOutputs
from .figure_parts import (
    OBJECT,
    OTHER_PEAK,
    OWN_PEAK,
    POSITIVE,
    legend_below,
    outline,
    show_image,
)


@dataclass
class LevelLosses:
    """The two losses towards one GT at every location of one level.

    Attributes:
        stride: in pixels.
        cls_loss, reg_loss: ``(h, w)``; of several anchors, those of the one with the smallest sum.
        inside: whether the location lies inside the GT, ``(h, w)`` bool.
        positives: row and column of the positives of this GT, ``(E, 2)``.
    """

    stride: int
    cls_loss: Tensor
    reg_loss: Tensor
    inside: Tensor
    positives: Tensor

    def peak(self, loss: Tensor) -> tuple[float, float] | None:
        """x and y of the location of least loss inside the GT, in pixels; ``None`` without one."""
        if not self.inside.any():
            return None
        index = int(loss.masked_fill(~self.inside, float("inf")).argmin())
        row, column = divmod(index, loss.shape[1])
        return (column + 0.5) * self.stride, (row + 0.5) * self.stride

    def gap(self) -> float | None:
        """Distance of the two peaks in strides; ``None`` without a location inside the GT."""
        a, b = self.peak(self.cls_loss), self.peak(self.reg_loss)
        if a is None or b is None:
            return None
        return float(np.hypot(a[0] - b[0], a[1] - b[1])) / self.stride


def losses_towards(
    outputs: DenseOutputs,
    bbox: Tensor,
    label: int,
    positives: Tensor,
    loss_bbox: dict | None = None,
) -> list[LevelLosses]:
    """Focal loss and box loss of every location towards one GT, per level.

    Args:
        outputs: predictions of the image.
        bbox: the GT, xyxy in pixels of the network input, ``(4,)``.
        label: its class index.
        positives: indices of its positive priors, ``(E,)``.
        loss_bbox: config of mmdet's box loss; by default ``GIoULoss``.
    """
    num = len(outputs.logits)
    device = outputs.logits.device
    gts = BatchGroundTruth.from_instances(
        [InstanceData(bboxes=bbox[None], labels=torch.tensor([label], device=device))]
    )
    every = torch.arange(num, device=device)
    pairs = CandidatePairs(every, torch.zeros_like(every), torch.tensor([num], device=device))
    loss = MODELS.build(loss_bbox or dict(type="GIoULoss"))
    cls_loss, reg_loss = pair_losses(pairs, outputs.logits, outputs.bboxes, gts, loss)
    # Of several anchors at a location, both losses are those of the best one.
    best = (cls_loss + reg_loss).view(-1, outputs.num_anchors).argmin(dim=1, keepdim=True)
    cls_loss, reg_loss = (
        part.view(-1, outputs.num_anchors).gather(1, best).squeeze(1).cpu()
        for part in (cls_loss, reg_loss)
    )
    locations = (positives // outputs.num_anchors).unique().cpu()
    levels, first = [], 0
    for (height, width), stride in zip(outputs.level_sizes, outputs.strides):
        count = height * width
        here = locations[(locations >= first) & (locations < first + count)] - first
        levels.append(
            LevelLosses(
                stride=stride,
                cls_loss=cls_loss[first : first + count].view(height, width),
                reg_loss=reg_loss[first : first + count].view(height, width),
                inside=_inside(height, width, stride, bbox.cpu()),
                positives=torch.stack([here // width, here % width], dim=1),
            )
        )
        first += count
    return levels


def _inside(height: int, width: int, stride: int, bbox: Tensor) -> Tensor:
    x = (torch.arange(width) + 0.5) * stride
    y = (torch.arange(height) + 0.5) * stride
    left, top, right, bottom = bbox.tolist()
    return ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))


def draw_loss_maps(
    image: np.ndarray, bbox: Tensor, levels: list[LevelLosses], title: str = ""
) -> Figure:
    """One row per level: classification loss left, regression loss right.

    A small loss is dark; the largest 2 % have one colour. The legend names the marks: the GT, its
    positives, the location of least loss inside it, and that of the other loss.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bbox: the GT, xyxy in the same pixels, ``(4,)``.
        levels: levels to draw, from :func:`losses_towards`.
        title: of the figure.
    """
    image = to_rgb_image(image)
    height, width = image.shape[:2]
    # A Figure made without pyplot is freed with its last reference.
    fig = Figure(figsize=(11, len(levels) * 5 * height / width + 1.1), layout="constrained")
    axes = fig.subplots(len(levels), 2, squeeze=False)
    for row, level in zip(axes, levels):
        losses = (("classification", level.cls_loss), ("regression", level.reg_loss))
        peaks = [level.peak(loss) for _, loss in losses]
        for side, (axis, (name, loss)) in enumerate(zip(row, losses)):
            show_image(axis, image)
            rows, columns = loss.shape
            values = loss.clamp(max=_robust_max(loss))
            shown = axis.imshow(
                values.numpy(),
                cmap="magma",
                alpha=0.65,
                interpolation="nearest",
                extent=(0, columns * level.stride, rows * level.stride, 0),
            )
            label = "focal loss" if side == 0 else "loss of the box"
            fig.colorbar(shown, ax=axis, shrink=0.8, extend="max", label=label)
            outline(axis, bbox)
            y, x = ((level.positives + 0.5) * level.stride).numpy().T
            axis.plot(x, y, **POSITIVE)
            own, other = peaks[side], peaks[1 - side]
            if own is not None and other is not None:
                axis.plot(*other, **OTHER_PEAK)
                axis.plot(*own, **OWN_PEAK)
            axis.set(xlim=(0, width), ylim=(height, 0))
            gap = level.gap()
            distance = "no location in the box" if gap is None else f"peaks {gap:.1f} strides apart"
            axis.set_title(f"{name} loss, stride {level.stride}: {distance}", fontsize=9)
    legend_below(
        fig,
        [("object", OBJECT), ("its positives", POSITIVE), ("least loss of this map", OWN_PEAK),
         ("least loss of the map beside it", OTHER_PEAK)],
    )  # fmt: skip
    fig.suptitle(title, fontsize=10)
    return fig


def _robust_max(loss: Tensor) -> float:
    """Upper end of the colours: a few much larger losses would leave everything else black."""
    return float(loss.flatten().kthvalue(max(1, int(0.98 * loss.numel()))).values)
