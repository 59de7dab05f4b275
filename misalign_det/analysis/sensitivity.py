"""Maps of class probability and IoU around one GT.

As in figure 1 of the paper on Dynamic Coefficient Loss, IoU-classification-aware score and
Classification-Localization balanced NMS.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from ..utils import to_rgb_image
from .dense_outputs import DenseOutputs
from .figure_parts import OBJECT, OTHER_PEAK, OWN_PEAK, legend_below, outline, show_image


def sensitivity_maps(
    outputs: DenseOutputs, bbox: Tensor, label: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Class probability and IoU of the predicted box at every location.

    Args:
        outputs: predictions of the image.
        bbox: the GT, xyxy in pixels of the network input, ``(4,)``.
        label: its class index.

    Returns:
        Two lists of maps ``(h, w)``, one per level; each is the largest value over the anchors of a
        location.
    """
    probability = outputs.logits[:, label].sigmoid()
    iou = bbox_overlaps(outputs.bboxes, bbox[None].to(outputs.bboxes))[:, 0]
    return outputs.maps(probability, "amax"), outputs.maps(iou, "amax")


def draw_sensitivity(
    image: np.ndarray, bbox: Tensor, outputs: DenseOutputs, label: int, title: str = ""
) -> Figure:
    """Draw the class probability and the IoU, each on the level of its peak, side by side.

    The legend names the marks: the GT, the map's own peak inside it, and the other map's.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bbox, label: the GT, xyxy in the same pixels, ``(4,)``, and its class index.
        outputs: predictions of the image.
        title: of the figure.
    """
    image = to_rgb_image(image)
    height, width = image.shape[:2]
    fig = Figure(figsize=(11, 5 * height / width + 1.1), layout="constrained")
    maps = sensitivity_maps(outputs, bbox, label)
    peaks = [_peak(levels, outputs.strides, bbox) for levels in maps]
    names = ("class probability", "IoU of the predicted box")
    for side, (axis, name) in enumerate(zip(fig.subplots(1, 2), names)):
        level, point = peaks[side]
        stride, values = outputs.strides[level], maps[side][level].cpu()
        show_image(axis, image)
        shown = axis.imshow(
            values.numpy(), cmap="viridis", alpha=0.6, interpolation="nearest", vmin=0,
            extent=(0, values.shape[1] * stride, values.shape[0] * stride, 0),
        )  # fmt: skip
        fig.colorbar(shown, ax=axis, shrink=0.8, label=name)
        outline(axis, bbox)
        other = peaks[1 - side][1]
        if point is not None and other is not None:
            axis.plot(*other, **OTHER_PEAK)
            axis.plot(*point, **OWN_PEAK)
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.set_title(f"{name}, stride {stride}", fontsize=9)
    first, second = peaks[0][1], peaks[1][1]
    if first is not None and second is not None:
        gap = np.hypot(*np.subtract(first, second))
        title = f"{title}: peaks {gap:.0f} pixels apart" if title else f"{gap:.0f} pixels apart"
    legend_below(
        fig,
        [("object", OBJECT), ("peak of this map", OWN_PEAK),
         ("peak of the map beside it", OTHER_PEAK)],
    )  # fmt: skip
    fig.suptitle(title, fontsize=10)
    return fig


def _peak(
    levels: Sequence[Tensor], strides: Sequence[int], bbox: Tensor
) -> tuple[int, tuple[float, float] | None]:
    """Level and x, y of the largest value inside the box; 0 and ``None`` without a location."""
    best = -1.0
    found: tuple[int, tuple[float, float] | None] = (0, None)
    left, top, right, bottom = bbox.tolist()
    for level, (values, stride) in enumerate(zip(levels, strides)):
        rows, columns = values.shape
        x, y = (torch.arange(columns) + 0.5) * stride, (torch.arange(rows) + 0.5) * stride
        inside = ((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))
        if not inside.any():
            continue
        masked = values.cpu().masked_fill(~inside, -1.0)
        if masked.max() > best:
            best, (row, column) = masked.max().item(), divmod(int(masked.argmax()), columns)
            found = level, (float(x[column]), float(y[row]))
    return found
