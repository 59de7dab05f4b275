"""CLBalancedNMS's kernels: they compile for GPUs, and decide as the CPU at the threshold."""

import itertools

import numpy as np
import pytest
import torch
from helpers.kernel_compilation import compile_for_gpus

from misalign_det.models.post_processing import cl_balanced_nms, nms_triton
from misalign_det.models.post_processing.cl_balanced_nms import CLOSENESS_MODES, OUTPUT_SCORES

MODULE = nms_triton.__name__
BITS = dict(BITS=nms_triton.BITS)


@pytest.mark.slow
def test_compile_and_round_each_step_of_an_iou():
    """Every variant that the package launches; fused multiply-adds would not round as the CPU."""
    overlaps = ["*i64", "*i64", "*i64", "i32", "i32", "fp32", "fp32", "fp32"]
    suppress = ["*i64", "*i64", "*i32", "*i32", "i32", "i32"]
    choose = ["*i64", "*i64", "*i32", "*i64", "*fp32", "i32", "i32", "fp32", "fp32"]
    kernels = []
    for dtype in ("*fp32", "*fp16"):
        options = dict(num_warps=8)
        kernels.append((MODULE, "_find_overlaps", [dtype, *overlaps], BITS, options))
    for words in (64, 512):
        options = dict(num_warps=words // 64)
        kernels.append((MODULE, "_suppress", suppress, dict(BITS, WORDS=words), options))
    for closeness, output in itertools.product(CLOSENESS_MODES, OUTPUT_SCORES):
        constants = dict(CLOSENESS=closeness, OUTPUT=output, **BITS, CHUNK=nms_triton.CHUNK)
        kernels.append((MODULE, "_choose", ["*fp32", *choose], constants))
    kernels.append((MODULE, "_choose", ["*fp16", *choose], constants))
    assert compile_for_gpus(kernels, absent="fma.rn.f32") == 2 * len(kernels)


def pairs_at_the_threshold(num):
    """Pairs of boxes far from each other pair, and the IoU of each in float32, step by step."""
    rng = np.random.default_rng(0)
    size = rng.random((num, 2), np.float32) * 50 + 10
    shift = size * (rng.random((num, 2), np.float32) * 0.3)
    first = np.concatenate([np.zeros_like(size), size], 1)
    second = np.concatenate([shift, shift + size * 1.1], 1)
    far = np.arange(num, dtype=np.float32)[:, None] * 256
    first, second = first + far, second + far
    extent = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (first, second)]
    inter = extent.prod(1)
    boxes = torch.from_numpy(np.stack([first, second], 1).reshape(-1, 4))
    return boxes, inter / (areas[0] + areas[1] - inter)


@pytest.mark.cuda
def test_a_pair_counts_where_the_rounded_iou_exceeds_the_threshold():
    """Not at a threshold equal to its IoU, but at the float32 before it."""
    boxes, ious = pairs_at_the_threshold(10)
    scores = torch.linspace(1, 0.5, len(boxes))
    for pair, iou in enumerate(ious):
        two, own = boxes[2 * pair :][:2], scores[2 * pair :][:2]
        for threshold, kept in ((iou, 2), (np.nextafter(iou, np.float32(0)), 1)):
            for device in ("cpu", "cuda"):
                found = cl_balanced_nms(two.to(device), own.to(device), float(threshold))[1]
                assert len(found) == kept


@pytest.mark.cuda
def test_clusters_over_two_words():
    """The last of 65 boxes is in the second word; the last rank of each cluster counts."""
    boxes = torch.tensor([[0.0, 0, 40, 40]]).repeat(65, 1)
    boxes[::2] += 100
    scores = torch.linspace(1, 0.5, 65)
    detections = torch.cat([boxes, scores[:, None]], dim=1).to("cuda")
    order = torch.arange(65).to("cuda")
    members, kept = nms_triton.greedy_clusters(detections, order, 0.5, 0)
    assert kept.cpu().tolist() == [0, 1] and members.shape == (65, 2)
    bits = (members.cpu()[:2, :, None] >> torch.arange(64)) & 1
    found = [row.flatten().nonzero()[:, 0].tolist() for row in bits]
    assert found == [list(range(2, 65, 2)), list(range(3, 65, 2))]
