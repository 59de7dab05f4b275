"""The joint loss against plain loops and mmdet's focal loss in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.assignment_scenes import grid, ground_truth
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.registry import MODELS

from misalign_det.models.task_modules.assigners import joint_loss as joint_loss_module
from misalign_det.models.task_modules.assigners.candidates import (
    BatchGroundTruth,
    CandidatePairs,
    build_candidate_pairs,
)
from misalign_det.models.task_modules.assigners.joint_loss import (
    joint_loss,
    pair_classification_loss,
    pair_losses,
)

INF = math.inf


def test_joint_loss_equals_a_plain_float64_loop():
    torch.manual_seed(0)
    gts = ground_truth([((0, 0, 30, 20), 2), ((5, 5, 28, 31), 0)], [((2, 3, 31, 29), 1)])
    points = grid()
    logits, bboxes = torch.randn(32, 3) * 3, torch.rand(32, 4) * 10
    bboxes[:, 2:] += 15
    pairs = build_candidate_pairs(points, gts)
    iou_loss = MODELS.build(dict(type="IoULoss"))
    loss = joint_loss(*pair_losses(pairs, logits, bboxes, gts, iou_loss), alpha=0.7)
    for e in range(len(pairs)):
        gt, prior = pairs.gt_inds[e].item(), pairs.prior_inds[e].item()
        expected = 0.0
        for c in range(3):
            p = 1 / (1 + math.exp(-logits[prior, c].item()))
            if c == gts.labels[gt]:
                expected -= 0.25 * (1 - p) ** 2 * math.log(p)
            else:
                expected -= 0.75 * p**2 * math.log(1 - p)
        (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = bboxes[prior].tolist(), gts.bboxes[gt].tolist()
        inter = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
        union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
        expected -= 0.7 * math.log(max(inter / union, 1e-6))
        assert loss[e].item() == pytest.approx(expected, rel=1e-4)


def test_classification_loss_equals_mmdets_focal_loss():
    torch.manual_seed(0)
    gts = ground_truth([((0, 0, 32, 32), 3), ((0, 0, 9, 9), 1)])
    pairs = build_candidate_pairs(grid(), gts)
    logits = torch.randn(16, 5) * 4
    loss = pair_classification_loss(pairs, logits, gts.labels)
    focal = MODELS.build(dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    target = gts.labels[pairs.gt_inds]
    expected = focal(logits[pairs.prior_inds], target, reduction_override="none").sum(dim=1)
    torch.testing.assert_close(loss, expected)


def test_classification_loss_of_extreme_logits():
    """The negatives' sum against mmdet's focal loss in float64, far outside sigmoid's range too."""
    gts = ground_truth([((0, 0, 32, 32), 0)])
    pairs = build_candidate_pairs(grid(), gts)
    logits = torch.zeros(16, 3)
    logits[:, 1] = torch.tensor(
        [-1e4, -200, -104, -90, -80, -30, -15, -5, -1, 1, 5, 15, 17, 30, 200, 1e4]
    )
    loss = pair_classification_loss(pairs, logits, gts.labels)
    focal = MODELS.build(dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    target = gts.labels[pairs.gt_inds]
    expected = focal(logits.double(), target, reduction_override="none").sum(dim=1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-7)


def random_pairs(num_locations, num_gts, num_pairs, num_classes):
    """A list of pairs, and labels of the GTs."""
    gt_inds = torch.randint(0, num_gts, (num_pairs,)).sort().values
    pairs = CandidatePairs(torch.randint(0, num_locations, (num_pairs,)), gt_inds, None)
    return pairs, torch.randint(0, num_classes, (num_gts,))


def focal_in_float64(pairs, logits, labels, **kwargs):
    """mmdet's focal loss as written, summed over classes; its limits at infinite logits."""
    target = labels[pairs.gt_inds]
    logits = logits.double()[pairs.prior_inds].clamp(-1e300, 1e300)
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).double()
    loss = py_sigmoid_focal_loss(logits, one_hot, reduction="none", **kwargs).sum(dim=1)
    return loss.masked_fill(loss > 1e290, INF)


@pytest.mark.parametrize("num_pairs", [900, 4000], ids=["pairs", "locations"])
@pytest.mark.parametrize("focal", [{}, dict(alpha=0.4, gamma=1.5)], ids=str)
def test_classification_loss_is_exact(num_pairs, focal, monkeypatch):
    """One class may make up all of the sum that is left out, or none; in blocks too."""
    torch.manual_seed(0)
    extremes = torch.tensor(
        [-INF, -1e4, -100.0, -30, -10, -5, -1, 0, 1, 5, 10, 20, 100, 1e4, 1e5, INF]
    )
    for draw in (
        lambda: extremes[torch.randint(0, 16, (1000, 4))],
        lambda: torch.cat([torch.full((1000, 3), -9.0), 10 ** (5 * torch.rand(1000, 1))], 1),
        lambda: torch.randn(1000, 4),
        lambda: 5 * torch.randn(1000, 4) - 5,
        lambda: torch.full((1000, 4), -4.6) + torch.rand(1000, 4) / 100,
        lambda: torch.full((1000, 4), 3.0),
    ):
        pairs, labels = random_pairs(1000, 30, num_pairs, 4)
        logits = draw()
        expected = focal_in_float64(pairs, logits, labels, **focal)
        for block in (joint_loss_module._BLOCK, 401):
            monkeypatch.setattr(joint_loss_module, "_BLOCK", block)
            loss = pair_classification_loss(pairs, logits, labels, **focal).double()
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-25)
    assert (expected > 0).all()


@pytest.mark.parametrize("num_pairs", [2, 3], ids=["pairs", "locations"])
def test_an_infinite_logit_is_a_probability_and_nan_is_dropped(num_pairs):
    own_class = [INF, -INF, math.nan, 0.0, 0.0, 0.0, INF]
    other_class = [-INF, -INF, 0.0, INF, -INF, math.nan, INF]
    certain = 0.25 * 0.25 * math.log(2)  # of a probability of one half
    expected = [0.0, INF, math.nan, INF, certain, math.nan, INF]
    for own, other, loss in zip(own_class, other_class, expected):
        logits = torch.tensor([[other, own, -INF]]).expand(3, 3)
        pairs = CandidatePairs(torch.zeros(num_pairs).long(), torch.zeros(num_pairs).long(), None)
        found = pair_classification_loss(pairs, logits, torch.tensor([1]))
        torch.testing.assert_close(found, torch.full((num_pairs,), loss), equal_nan=True)


@pytest.mark.parametrize("num_pairs", [30, 70], ids=["pairs", "locations"])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_losses_are_computed_in_float32(num_pairs, dtype):
    torch.manual_seed(0)
    pairs, labels = random_pairs(50, 4, num_pairs, 5)
    boxes = torch.rand(4, 4) * 20
    boxes[:, 2:] += 20
    gts = BatchGroundTruth(boxes, labels, torch.zeros(4).long(), 1)
    logits, bboxes = (torch.randn(50, 5) * 3).to(dtype), (torch.rand(50, 4) * 40).to(dtype)
    loss_bbox, seen = MODELS.build(dict(type="mmdet.GIoULoss")), []

    def watched(pred, target, **kwargs):
        seen.extend([pred.dtype, target.dtype])
        return loss_bbox(pred, target, **kwargs)

    found = pair_losses(pairs, logits, bboxes, gts, watched)
    expected = pair_losses(pairs, logits.float(), bboxes.float(), gts, loss_bbox)
    assert seen == [torch.float32] * 2
    for mine, theirs in zip(found, expected):
        assert mine.dtype == torch.float32 and torch.equal(mine, theirs)


def test_the_inputs_stay_as_they_are():
    torch.manual_seed(0)
    for num_pairs in (30, 70):
        pairs, labels = random_pairs(50, 4, num_pairs, 5)
        logits = torch.randn(50, 5)
        before = logits.clone()
        pair_classification_loss(pairs, logits, labels)
        assert torch.equal(logits, before)


def test_joint_loss_weighs_the_box_loss():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    assert joint_loss(one, two).item() == 3 and joint_loss(one, two, 0.5).item() == 2


def test_rows_are_taken_in_blocks_on_the_cpu():
    assert joint_loss_module._block_size(torch.empty(10**4, 2**10)) == 2**7
    assert joint_loss_module._block_size(torch.empty(3, 2**18)) == 1
    assert joint_loss_module._block_size(SimpleNamespace(shape=(10**6, 80), is_cuda=True)) == 10**6
