"""Classification and regression loss over the image, side by side (paper A's spatial analysis).

Points with a small classification loss and points with a small regression loss lie apart: that is
the spatial misalignment that both papers' assigners work against.
"""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from ..models.task_modules.assigners.candidates import BatchGroundTruth, CandidatePairs
from ..models.task_modules.assigners.joint_loss import pair_losses
from ..utils import to_rgb_image
from .dense_outputs import DenseOutputs


@dataclass
class LevelLosses:
    """The two losses towards one GT at every location of one level.

    Attributes:
        stride: in pixels.
        cls_loss, reg_loss: ``(h, w)``; with several anchors, of the one of least sum.
        inside: whether the location lies in the GT, ``(h, w)`` bool.
        positives: row and column of the locations trained towards this GT, ``(E, 2)``.
    """

    stride: int
    cls_loss: Tensor
    reg_loss: Tensor
    inside: Tensor
    positives: Tensor

    def peak(self, loss: Tensor) -> tuple[float, float] | None:
        """Centre in pixels of the in-box location of least loss, or ``None`` if there is none."""
        if not self.inside.any():
            return None
        place = loss.masked_fill(~self.inside, float("inf")).argmin().item()
        row, column = divmod(place, loss.shape[1])
        return (column + 0.5) * self.stride, (row + 0.5) * self.stride

    def gap(self) -> float | None:
        """Distance in strides between the two peaks."""
        if not self.inside.any():
            return None
        a, b = self.peak(self.cls_loss), self.peak(self.reg_loss)
        return float(np.hypot(a[0] - b[0], a[1] - b[1])) / self.stride


def losses_towards(
    outputs: DenseOutputs,
    bbox: Tensor,
    label: int,
    positives: Tensor,
    loss_bbox: dict | None = None,
) -> list[LevelLosses]:
    """Focal and box loss of every prior towards one GT, a level.

    Args:
        outputs: predictions of the image.
        bbox: the GT, xyxy in pixels, ``(4,)``.
        label: its class.
        positives: priors trained towards it, ``(E,)``.
        loss_bbox: config of mmdet's box loss; GIoU loss by default.
    """
    num = len(outputs.logits)
    device = outputs.logits.device
    gts = BatchGroundTruth.from_instances(
        [InstanceData(bboxes=bbox[None], labels=torch.tensor([label], device=device))]
    )
    every = torch.arange(num, device=device)
    edges = CandidatePairs(every, torch.zeros_like(every), torch.tensor([num], device=device))
    loss = MODELS.build(loss_bbox or dict(type="GIoULoss"))
    cls_loss, reg_loss = pair_losses(edges, outputs.logits, outputs.bboxes, gts, loss)
    # Of several anchors at a location the best one speaks for it, with both of its losses.
    best = (cls_loss + reg_loss).view(-1, outputs.num_anchors).argmin(dim=1, keepdim=True)
    cls_loss, reg_loss = (
        part.view(-1, outputs.num_anchors).gather(1, best).squeeze(1).cpu()
        for part in (cls_loss, reg_loss)
    )
    place = (positives // outputs.num_anchors).unique().cpu()
    levels, first = [], 0
    for (height, width), stride in zip(outputs.level_sizes, outputs.strides):
        count = height * width
        here = place[(place >= first) & (place < first + count)] - first
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
    """One row a level: classification loss left, regression loss right.

    Dark is a small loss. The GT box is white, green crosses are the positives trained towards it,
    the star is the in-box location of least loss, the ring that of the other task.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bbox: the GT, xyxy in the same pixels.
        levels: those to draw, from :func:`losses_towards`.
        title: stands above.
    """
    image = to_rgb_image(image)
    height, width = image.shape[:2]
    # A Figure of its own, outside pyplot, is freed with its last reference.
    fig = Figure(figsize=(10, len(levels) * 5 * height / width + 0.8), layout="constrained")
    axes = fig.subplots(len(levels), 2, squeeze=False)
    left, top, right, bottom = bbox.tolist()
    for row, level in zip(axes, levels):
        losses = (("classification", level.cls_loss), ("regression", level.reg_loss))
        peaks = [level.peak(loss) for _, loss in losses]
        for side, (axis, (name, loss)) in enumerate(zip(row, losses)):
            axis.imshow(image, extent=(0, width, height, 0))
            rows, columns = loss.shape
            values = loss.clamp(max=_robust_max(loss))
            shown = axis.imshow(
                values.numpy(),
                cmap="magma",
                alpha=0.65,
                interpolation="nearest",
                extent=(0, columns * level.stride, rows * level.stride, 0),
            )
            fig.colorbar(shown, ax=axis, shrink=0.8)
            axis.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=1.5)
            )
            y, x = ((level.positives + 0.5) * level.stride).numpy().T
            axis.plot(x, y, "x", color="#30ff60", ms=7, mew=1.8)
            if peaks[side] is not None:
                axis.plot(*peaks[side], "*", color="cyan", ms=13, mec="black")
                axis.plot(*peaks[1 - side], "o", mfc="none", color="cyan", ms=11, mew=1.5)
            axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
            gap = level.gap()
            distance = "no location in the box" if gap is None else f"peaks {gap:.1f} strides apart"
            axis.set_title(f"{name} loss, stride {level.stride}: {distance}", fontsize=9)
    fig.suptitle(title, fontsize=10)
    return fig


def _robust_max(loss: Tensor) -> float:
    """Some far-off boxes have losses that would leave everything else black."""
    return float(loss.flatten().kthvalue(max(1, int(0.98 * loss.numel()))).values)
