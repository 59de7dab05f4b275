"""How good the boxes are that an assigner calls positive (paper B, figure 5)."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..dense_outputs import dense_outputs, training_positives
from ..report.html_report import COLORS

THRESHOLDS = np.linspace(0.5, 0.95, 10)


@torch.no_grad()
def positive_overlaps(
    model: nn.Module, inputs: Tensor, gt_instances: InstanceData, meta: dict
) -> Tensor:
    """IoU of the predicted box of each positive with its object, ``(E,)``.

    Args:
        model: a one-stage detector with the train_cfg that it trained with.
        inputs: one preprocessed image, ``(1, 3, H, W)``.
        gt_instances: boxes in pixels of the input.
        meta: mmdet's metainfo.
    """
    if len(gt_instances) == 0:
        return torch.zeros(0)
    priors, gts = training_positives(model, inputs, gt_instances, meta)
    bboxes = dense_outputs(model, inputs).bboxes
    return bbox_overlaps(bboxes[priors], gt_instances.bboxes[gts], is_aligned=True).cpu()


def shares_above(overlaps: np.ndarray) -> np.ndarray:
    """Share of samples at or above each of COCO's IoU thresholds, ``(10,)``; NaN without any."""
    if len(overlaps) == 0:
        return np.full(len(THRESHOLDS), np.nan)
    return (overlaps[:, None] >= THRESHOLDS).mean(axis=0)


def draw_sample_quality(names: Sequence[str], shares: Sequence[np.ndarray]) -> Figure:
    """A curve a detector: share of its positives whose box reaches each IoU."""
    fig = Figure(figsize=(6, 4), layout="constrained")
    axis = fig.subplots()
    for i, (name, share) in enumerate(zip(names, shares)):
        axis.plot(THRESHOLDS, 100 * share, "o-", ms=4, color=COLORS[i % len(COLORS)], label=name)
    axis.set(xlabel="IoU threshold", ylabel="positives above, %", ylim=(0, 100))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    return fig
