"""Where the classifier and the localiser of a detector respond to an object (paper C, figure 1)."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from ..utils import to_rgb_image
from .dense_outputs import DenseOutputs


def sensitivity_maps(
    outputs: DenseOutputs, bbox: Tensor, label: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Class probability and IoU of the predicted box at every location, a map a level.

    Args:
        outputs: predictions of the image.
        bbox: the object, xyxy in pixels of the input, ``(4,)``.
        label: its class.

    Returns:
        Two lists of ``(h, w)``; of several anchors at a location, each map shows its best.
    """
    probability = outputs.logits[:, label].sigmoid()
    iou = bbox_overlaps(outputs.bboxes, bbox[None].to(outputs.bboxes))[:, 0]
    return outputs.maps(probability, "amax"), outputs.maps(iou, "amax")


def draw_sensitivity(
    image: np.ndarray, bbox: Tensor, outputs: DenseOutputs, label: int, title: str = ""
) -> Figure:
    """The level of the best class score, and that of the best IoU: the two maps side by side.

    A star marks each map's own peak inside the object, a ring the other's.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bbox, label: the object.
        outputs: predictions of the image.
        title: stands above.
    """
    image = to_rgb_image(image)
    height, width = image.shape[:2]
    fig = Figure(figsize=(10.5, 5 * height / width + 0.8), layout="constrained")
    maps = sensitivity_maps(outputs, bbox, label)
    peaks = [_peak(levels, outputs.strides, bbox) for levels in maps]
    names = ("class probability", "IoU of the predicted box")
    left, top, right, bottom = bbox.tolist()
    for side, (axis, name) in enumerate(zip(fig.subplots(1, 2), names)):
        level, point = peaks[side]
        stride, values = outputs.strides[level], maps[side][level].cpu()
        axis.imshow(image, extent=(0, width, height, 0))
        shown = axis.imshow(
            values.numpy(), cmap="viridis", alpha=0.6, interpolation="nearest", vmin=0,
            extent=(0, values.shape[1] * stride, values.shape[0] * stride, 0),
        )  # fmt: skip
        fig.colorbar(shown, ax=axis, shrink=0.8)
        axis.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=1.5)
        )
        if point is not None:
            axis.plot(*point, "*", color="#ff3b30", ms=14, mec="white")
            axis.plot(*peaks[1 - side][1], "o", mfc="none", color="#ff3b30", ms=12, mew=1.8)
        axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axis.set_title(f"{name}, stride {stride}", fontsize=9)
    if peaks[0][1] is not None:
        gap = np.hypot(*np.subtract(peaks[0][1], peaks[1][1]))
        title = f"{title}: peaks {gap:.0f} pixels apart" if title else f"{gap:.0f} pixels apart"
    fig.suptitle(title, fontsize=10)
    return fig


def _peak(levels: list[Tensor], strides: list[int], bbox: Tensor):
    """Level and x, y of the largest value inside the box; level 0 and ``None`` without one."""
    best, found = -1.0, (0, None)
    left, top, right, bottom = bbox.tolist()
    for level, (values, stride) in enumerate(zip(levels, strides)):
        rows, columns = values.shape
        x, y = (torch.arange(columns) + 0.5) * stride, (torch.arange(rows) + 0.5) * stride
        inside = ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))
        if not inside.any():
            continue
        masked = values.cpu().masked_fill(~inside, -1.0)
        if masked.max() > best:
            best, place = masked.max().item(), masked.argmax().item()
            found = level, (x[place % columns].item(), y[place // columns].item())
    return found
