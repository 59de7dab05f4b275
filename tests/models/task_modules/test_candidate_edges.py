"""Candidate edges and the joint loss against plain loops in float64."""

import math

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.candidate_edges import (
    BatchGroundTruth,
    build_candidate_edges,
    select_top_candidates,
)
from misalign_det.models.task_modules.joint_loss import (
    edge_classification_loss,
    edge_losses,
    joint_loss,
)


def ground_truth(*images):
    """One list of ((x1, y1, x2, y2), label) an image."""
    return BatchGroundTruth.from_instances(
        [
            InstanceData(
                bboxes=torch.tensor([box for box, _ in image], dtype=torch.float32).reshape(-1, 4),
                labels=torch.tensor([label for _, label in image], dtype=torch.long),
            )
            for image in images
        ]
    )


def grid(size=4, stride=8):
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (torch.stack([xs, ys], dim=-1).reshape(-1, 2) + 0.5) * stride


def test_edges_by_hand():
    # Points at 4, 12, 20, 28. The first image has a box around the four points of the top left
    # corner, the second none, the third one around the single point (12, 20), index 9.
    gts = ground_truth([((0, 0, 16, 16), 1)], [], [((9, 17, 15, 23), 0)])
    edges = build_candidate_edges(grid(), gts)
    assert edges.prior_inds.tolist() == [0, 1, 4, 5, 2 * 16 + 9]
    assert edges.gt_inds.tolist() == [0, 0, 0, 0, 1]
    assert edges.counts.tolist() == [4, 1]


def test_center_radius_keeps_locations_near_the_centre():
    gts = ground_truth([((0, 0, 32, 32), 0)])  # centre (16, 16); points 4 and 28 are 12 away
    strides = torch.full((16,), 8.0)
    assert len(build_candidate_edges(grid(), gts, strides, center_radius=1.0)) == 4
    assert len(build_candidate_edges(grid(), gts, strides, center_radius=1.6)) == 16
    with pytest.raises(ValueError, match="strides"):
        build_candidate_edges(grid(), gts, center_radius=1.0)


def test_top_candidates_drop_non_finite_and_break_ties_by_location():
    gts = ground_truth([((0, 0, 16, 16), 0), ((0, 0, 32, 8), 0)])
    edges = build_candidate_edges(grid(), gts)  # 4 edges, then the top row's 4
    losses = torch.tensor([2.0, 1.0, 1.0, math.nan, math.inf, 0.5, math.nan, -math.inf])
    top = select_top_candidates(edges, losses, topk=3)
    assert top.losses[0].tolist() == [1.0, 1.0, 2.0]
    assert top.prior_inds[0].tolist() == [1, 4, 0]
    assert top.valid.tolist() == [[True] * 3, [True, False, False]]
    assert top.prior_inds[1, 0] == 1 and top.losses[1, 1] == math.inf
    assert top.edge_inds[top.valid].tolist() == [1, 2, 0, 5]


def test_top_candidates_equal_a_dense_topk():
    torch.manual_seed(0)
    boxes = torch.rand(50, 4) * 100
    boxes[:, 2:] += boxes[:, :2]
    gts = ground_truth([(box.tolist(), 0) for box in boxes])
    points = grid(size=25, stride=8)
    edges = build_candidate_edges(points, gts)
    losses = torch.rand(len(edges))
    dense = torch.full((50, len(points)), math.inf)
    dense[edges.gt_inds, edges.prior_inds] = losses
    top = select_top_candidates(edges, losses, topk=35)
    assert torch.equal(top.losses, dense.topk(35, largest=False).values)


def test_top_candidates_of_losses_of_either_sign():
    """Sorted by the floats' bits: negative ones, both zeros, tiny ones and equal ones."""
    torch.manual_seed(0)
    gts = ground_truth([((0, 0, 200, 200), 0), ((0, 0, 90, 200), 0)])
    edges = build_candidate_edges(grid(size=25, stride=8), gts)
    losses = (torch.randn(len(edges)) * 4).round() / 4
    losses[::5] *= 1e-40
    losses[::7] = -0.0
    top = select_top_candidates(edges, losses, topk=300)
    for gt in range(2):
        own = losses[edges.gt_inds == gt]
        assert torch.equal(top.losses[gt][: len(own)], own.sort(stable=True).values[:300])


def test_joint_loss_equals_a_plain_float64_loop():
    torch.manual_seed(0)
    gts = ground_truth([((0, 0, 30, 20), 2), ((5, 5, 28, 31), 0)], [((2, 3, 31, 29), 1)])
    points = grid()
    logits, bboxes = torch.randn(32, 3) * 3, torch.rand(32, 4) * 10
    bboxes[:, 2:] += 15
    edges = build_candidate_edges(points, gts)
    iou_loss = MODELS.build(dict(type="IoULoss"))
    loss = joint_loss(*edge_losses(edges, logits, bboxes, gts, iou_loss), alpha=0.7)
    for e in range(len(edges)):
        gt, prior = edges.gt_inds[e].item(), edges.prior_inds[e].item()
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
    edges = build_candidate_edges(grid(), gts)
    logits = torch.randn(16, 5) * 4
    loss = edge_classification_loss(edges, logits, gts.labels)
    focal = MODELS.build(dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    target = gts.labels[edges.gt_inds]
    expected = focal(logits[edges.prior_inds], target, reduction_override="none").sum(dim=1)
    torch.testing.assert_close(loss, expected)


def test_classification_loss_of_extreme_logits():
    """The negatives' sum against mmdet's focal loss in float64, far outside sigmoid's range too."""
    gts = ground_truth([((0, 0, 32, 32), 0)])
    edges = build_candidate_edges(grid(), gts)
    logits = torch.zeros(16, 3)
    logits[:, 1] = torch.tensor(
        [-1e4, -200, -104, -90, -80, -30, -15, -5, -1, 1, 5, 15, 17, 30, 200, 1e4]
    )
    loss = edge_classification_loss(edges, logits, gts.labels)
    focal = MODELS.build(dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    target = gts.labels[edges.gt_inds]
    expected = focal(logits.double(), target, reduction_override="none").sum(dim=1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-7)
