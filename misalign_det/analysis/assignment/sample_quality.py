"""IoU of the boxes predicted at positives, as in figure 5 of the Triple-head Network paper."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.models.detectors import SingleStageDetector
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from ..dense_outputs import dense_outputs, training_positives
from ..nms_regret import THRESHOLDS
from ..palette import style


@torch.no_grad()
def positive_overlaps(
    model: SingleStageDetector, inputs: Tensor, gt_instances: InstanceData, meta: dict
) -> Tensor:
    """IoU of the predicted box of each positive with its GT.

    Args:
        model: a one-stage detector with the ``train_cfg`` of its training.
        inputs: one preprocessed image, ``(1, 3, H, W)``.
        gt_instances: ``bboxes`` ``(G, 4)``, xyxy in pixels of the network input, and ``labels``
            ``(G,)``.
        meta: mmdet's metainfo of the image.

    Returns:
        ``(E,)``, on the CPU.

    Raises:
        InputError: see :func:`~misalign_det.analysis.dense_outputs.training_positives`.
    """
    if len(gt_instances) == 0:
        return torch.zeros(0)
    priors, gts = training_positives(model, inputs, gt_instances, meta)
    bboxes = dense_outputs(model, inputs).bboxes
    return bbox_overlaps(bboxes[priors], gt_instances.bboxes[gts], is_aligned=True).cpu()


def shares_above(overlaps: np.ndarray) -> np.ndarray:
    """Share of IoUs ``(E,)`` that reach each of COCO's thresholds, ``(10,)``; NaN if E is 0."""
    if len(overlaps) == 0:
        return np.full(len(THRESHOLDS), np.nan)
    return (overlaps[:, None] >= THRESHOLDS).mean(axis=0)


def draw_sample_quality(names: Sequence[str], shares: Sequence[np.ndarray]) -> Figure:
    """One curve per detector: the share of its positives whose box reaches each IoU."""
    fig = Figure(figsize=(6, 4), layout="constrained")
    axis = fig.subplots()
    for i, (name, share) in enumerate(zip(names, shares)):
        axis.plot(THRESHOLDS, 100 * share, **style(i), ms=5, label=name)
    axis.set(xlabel="IoU threshold", ylabel="positives above, %", ylim=(0, 103))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
    return fig
