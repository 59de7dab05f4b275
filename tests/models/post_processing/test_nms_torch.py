"""CLBalancedNMS on a GPU without Triton: the CPU's results, whatever mmcv's kernel rounds."""

import pytest
import torch
from helpers.nms_scenes import check_equal_on_cuda, odd_boxes

from misalign_det.models.post_processing import nms_cuda, nms_torch

pytestmark = pytest.mark.cuda


def test_many_scenes_equal_the_cpu(monkeypatch):
    """In several rounds of pairs."""
    monkeypatch.setattr(nms_cuda, "has_triton", lambda x: False)
    monkeypatch.setattr(nms_torch, "MAX_PAIRS", 300)
    for seed in range(25):
        check_equal_on_cuda(*odd_boxes(40 + seed, seed), iou_threshold=0.4 + 0.01 * (seed % 20))


def nms_as_mmcvs_cuda_kernel(boxes, scores, iou_threshold, offset):
    """It multiplies, so that a negative area overlaps everything; here each IoU is too large."""
    assert (scores[1:] < scores[:-1]).all()  # else its sort may change the order
    boxes, kept = boxes.cpu(), []
    extent = boxes[:, 2:] - boxes[:, :2] + offset
    for i, box in enumerate(boxes):
        inter = torch.minimum(box[2:], boxes[kept, 2:]) - torch.maximum(box[:2], boxes[kept, :2])
        inter = (inter + offset).clamp(min=0).prod(dim=1)
        union = extent[i].prod() + extent[kept].prod(dim=1) - inter
        if not (inter > iou_threshold * (1 - 1e-6) * union).any():
            kept.append(i)
    return None, torch.tensor(kept).to("cuda")


def test_mmcvs_kernel_decides_which_boxes_are_kept(monkeypatch):
    """Its rounding leaves no box without a cluster; boxes of negative extent overlap nothing."""
    monkeypatch.setattr(nms_cuda, "has_triton", lambda x: False)
    monkeypatch.setattr(nms_torch.mmcv_nms, "nms", nms_as_mmcvs_cuda_kernel)
    for seed in (0, 2, 4, 6):
        check_equal_on_cuda(*odd_boxes(60, seed), offset=seed // 2 % 2)
    # The second box overlaps the first by exactly 3 of 5, and the third by less.
    boxes = torch.tensor([[0.0, 0, 4, 1], [1, 0, 5, 1], [2.5, 0, 6.5, 1]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    order = torch.arange(3).to("cuda")
    detections = torch.cat([boxes, scores[:, None]], dim=1).to("cuda")
    cluster, kept = nms_torch.greedy_clusters(detections, order, 0.6, 0)
    assert cluster.cpu().tolist() == [0, 0, 1] and kept.cpu().tolist() == [0, 2]
