"""Candidate edges and the joint loss against plain loops in float64."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.assigners import joint_loss as joint_loss_module
from misalign_det.models.task_modules.assigners.candidates import (
    BatchGroundTruth,
    CandidatePairs,
    build_candidate_pairs,
    select_top_candidates,
)
from misalign_det.models.task_modules.assigners.joint_loss import (
    joint_loss,
    pair_classification_loss,
    pair_losses,
)

INF = math.inf


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
    edges = build_candidate_pairs(grid(), gts)
    assert edges.prior_inds.tolist() == [0, 1, 4, 5, 2 * 16 + 9]
    assert edges.gt_inds.tolist() == [0, 0, 0, 0, 1]
    assert edges.counts.tolist() == [4, 1]


def test_center_radius_keeps_locations_near_the_centre():
    gts = ground_truth([((0, 0, 32, 32), 0)])  # centre (16, 16); points 4 and 28 are 12 away
    strides = torch.full((16,), 8.0)
    assert len(build_candidate_pairs(grid(), gts, strides, center_radius=1.0)) == 4
    assert len(build_candidate_pairs(grid(), gts, strides, center_radius=1.6)) == 16
    with pytest.raises(ValueError, match="strides"):
        build_candidate_pairs(grid(), gts, center_radius=1.0)


def test_top_candidates_drop_non_finite_and_break_ties_by_location():
    gts = ground_truth([((0, 0, 16, 16), 0), ((0, 0, 32, 8), 0)])
    edges = build_candidate_pairs(grid(), gts)  # 4 edges, then the top row's 4
    losses = torch.tensor([2.0, 1.0, 1.0, math.nan, math.inf, 0.5, math.nan, -math.inf])
    top = select_top_candidates(edges, losses, topk=3)
    assert top.losses[0].tolist() == [1.0, 1.0, 2.0]
    assert top.prior_inds[0].tolist() == [1, 4, 0]
    assert top.valid.tolist() == [[True] * 3, [True, False, False]]
    assert top.prior_inds[1, 0] == 1 and top.losses[1, 1] == math.inf
    assert top.pair_inds[top.valid].tolist() == [1, 2, 0, 5]


def test_top_candidates_equal_a_dense_topk():
    torch.manual_seed(0)
    boxes = torch.rand(50, 4) * 100
    boxes[:, 2:] += boxes[:, :2]
    gts = ground_truth([(box.tolist(), 0) for box in boxes])
    points = grid(size=25, stride=8)
    edges = build_candidate_pairs(points, gts)
    losses = torch.rand(len(edges))
    dense = torch.full((50, len(points)), math.inf)
    dense[edges.gt_inds, edges.prior_inds] = losses
    top = select_top_candidates(edges, losses, topk=35)
    assert torch.equal(top.losses, dense.topk(35, largest=False).values)


def test_top_candidates_of_losses_of_either_sign():
    """Sorted by the floats' bits: negative ones, both zeros, tiny ones and equal ones."""
    torch.manual_seed(0)
    gts = ground_truth([((0, 0, 200, 200), 0), ((0, 0, 90, 200), 0)])
    edges = build_candidate_pairs(grid(size=25, stride=8), gts)
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
    edges = build_candidate_pairs(points, gts)
    iou_loss = MODELS.build(dict(type="IoULoss"))
    loss = joint_loss(*pair_losses(edges, logits, bboxes, gts, iou_loss), alpha=0.7)
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
    edges = build_candidate_pairs(grid(), gts)
    logits = torch.randn(16, 5) * 4
    loss = pair_classification_loss(edges, logits, gts.labels)
    focal = MODELS.build(dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    target = gts.labels[edges.gt_inds]
    expected = focal(logits[edges.prior_inds], target, reduction_override="none").sum(dim=1)
    torch.testing.assert_close(loss, expected)


def test_classification_loss_of_extreme_logits():
    """The negatives' sum against mmdet's focal loss in float64, far outside sigmoid's range too."""
    gts = ground_truth([((0, 0, 32, 32), 0)])
    edges = build_candidate_pairs(grid(), gts)
    logits = torch.zeros(16, 3)
    logits[:, 1] = torch.tensor(
        [-1e4, -200, -104, -90, -80, -30, -15, -5, -1, 1, 5, 15, 17, 30, 200, 1e4]
    )
    loss = pair_classification_loss(edges, logits, gts.labels)
    focal = MODELS.build(dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25))
    target = gts.labels[edges.gt_inds]
    expected = focal(logits.double(), target, reduction_override="none").sum(dim=1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "box, inside",
    [((4, 0, 16, 16), [1, 5]), ((0, 4, 16, 16), [4, 5]), ((0, 0, 12, 16), [0, 4]),
     ((0, 0, 16, 12), [0, 1])],
)  # fmt: skip
def test_a_location_on_the_border_is_outside(box, inside):
    assert build_candidate_pairs(grid(), ground_truth([(box, 0)])).prior_inds.tolist() == inside


def test_center_sampling_never_leaves_the_box_and_is_strict():
    strides = torch.full((16,), 8.0)
    # Within 12 pixels of (12, 12) lie nine locations, in the box of 4 pixels one.
    small = ground_truth([((10, 10, 14, 14), 0)])
    edges = build_candidate_pairs(grid(), small, strides, center_radius=1.5)
    assert edges.prior_inds.tolist() == [5]
    # 4 and 28 are exactly 1.5 strides from the centre of this one.
    large = ground_truth([((0, 0, 32, 32), 0)])
    assert len(build_candidate_pairs(grid(), large, strides, center_radius=1.5)) == 4
    # Each axis has its own centre.
    wide = ground_truth([((8, 0, 32, 16), 0)])  # centre (20, 8)
    edges = build_candidate_pairs(grid(), wide, strides, center_radius=0.9)
    assert edges.prior_inds.tolist() == [2, 6]


def test_equal_losses_stay_in_the_order_of_locations():
    gts = ground_truth([((0, 0, 400, 400), 0)])
    edges = build_candidate_pairs(grid(size=50, stride=8), gts)
    losses = torch.zeros(len(edges))
    losses[::2] = -0.0  # equal to 0.0
    top = select_top_candidates(edges, losses, topk=2500)
    assert top.prior_inds[0].tolist() == list(range(2500))


def test_ground_truth_of_any_type_and_class():
    boxes = torch.tensor([[0.1, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]])
    empty = [torch.empty(0, 2).long(), torch.empty(0), torch.empty(0, dtype=torch.int32)]
    numbers = torch.tensor([2.0, 0.0]), torch.tensor([[2], [0]]), torch.ByteTensor([2, 0])
    for bboxes in (boxes.half(), boxes.double(), HorizontalBoxes(boxes), boxes.long()):
        for labels in numbers:
            images = [InstanceData(bboxes=bboxes, labels=labels)]
            images += [InstanceData(bboxes=torch.empty(0, 4), labels=none) for none in empty]
            images += [InstanceData(bboxes=torch.empty(0), labels=torch.empty(0))]
            gts = BatchGroundTruth.from_instances(images)
            assert gts.bboxes.dtype == torch.float32 and gts.bboxes.shape == (2, 4)
            assert gts.labels.dtype == torch.long and gts.labels.tolist() == [2, 0]
            assert gts.image_inds.dtype == torch.long and gts.num_images == 5
            assert gts.bboxes[1].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    "bboxes, labels",
    [(torch.rand(2, 4), torch.zeros(3)), (torch.rand(2, 5), torch.zeros(2)),
     (torch.rand(2, 4), torch.zeros(2, 2)), (torch.rand(4), torch.zeros(1))],
)  # fmt: skip
def test_ground_truth_that_does_not_fit_together_is_refused(bboxes, labels):
    # What InstanceData itself would refuse may come from a dataset's own class.
    images = [SimpleNamespace(bboxes=torch.empty(0, 4), labels=torch.empty(0))]
    images += [SimpleNamespace(bboxes=bboxes, labels=labels)]
    with pytest.raises(ValueError, match=r"\(G, 4\).*image 1"):
        BatchGroundTruth.from_instances(images)


def random_edges(num_locations, num_gts, num_edges, num_classes):
    """A list of edges, and labels of the GTs."""
    gt_inds = torch.randint(0, num_gts, (num_edges,)).sort().values
    edges = CandidatePairs(torch.randint(0, num_locations, (num_edges,)), gt_inds, None)
    return edges, torch.randint(0, num_classes, (num_gts,))


def focal_in_float64(edges, logits, labels, **kwargs):
    """mmdet's focal loss as written, summed over classes; its limits at infinite logits."""
    target = labels[edges.gt_inds]
    logits = logits.double()[edges.prior_inds].clamp(-1e300, 1e300)
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1]).double()
    loss = py_sigmoid_focal_loss(logits, one_hot, reduction="none", **kwargs).sum(dim=1)
    return loss.masked_fill(loss > 1e290, INF)


@pytest.mark.parametrize("num_edges", [900, 4000], ids=["edges", "locations"])
@pytest.mark.parametrize("focal", [{}, dict(alpha=0.4, gamma=1.5)], ids=str)
def test_classification_loss_is_exact(num_edges, focal, monkeypatch):
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
        edges, labels = random_edges(1000, 30, num_edges, 4)
        logits = draw()
        expected = focal_in_float64(edges, logits, labels, **focal)
        for block in (joint_loss_module._BLOCK, 401):
            monkeypatch.setattr(joint_loss_module, "_BLOCK", block)
            loss = pair_classification_loss(edges, logits, labels, **focal).double()
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-25)
    assert (expected > 0).all()


@pytest.mark.parametrize("num_edges", [2, 3], ids=["edges", "locations"])
def test_an_infinite_logit_is_a_probability_and_nan_is_dropped(num_edges):
    own_class = [INF, -INF, math.nan, 0.0, 0.0, 0.0, INF]
    other_class = [-INF, -INF, 0.0, INF, -INF, math.nan, INF]
    certain = 0.25 * 0.25 * math.log(2)  # of a probability of one half
    expected = [0.0, INF, math.nan, INF, certain, math.nan, INF]
    for own, other, loss in zip(own_class, other_class, expected):
        logits = torch.tensor([[other, own, -INF]]).expand(3, 3)
        edges = CandidatePairs(torch.zeros(num_edges).long(), torch.zeros(num_edges).long(), None)
        found = pair_classification_loss(edges, logits, torch.tensor([1]))
        torch.testing.assert_close(found, torch.full((num_edges,), loss), equal_nan=True)


@pytest.mark.parametrize("num_edges", [30, 70], ids=["edges", "locations"])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, torch.double])
def test_losses_are_computed_in_float32(num_edges, dtype):
    torch.manual_seed(0)
    edges, labels = random_edges(50, 4, num_edges, 5)
    boxes = torch.rand(4, 4) * 20
    boxes[:, 2:] += 20
    gts = BatchGroundTruth(boxes, labels, torch.zeros(4).long(), 1)
    logits, bboxes = (torch.randn(50, 5) * 3).to(dtype), (torch.rand(50, 4) * 40).to(dtype)
    loss_bbox, seen = MODELS.build(dict(type="mmdet.GIoULoss")), []

    def watched(pred, target, **kwargs):
        seen.extend([pred.dtype, target.dtype])
        return loss_bbox(pred, target, **kwargs)

    found = pair_losses(edges, logits, bboxes, gts, watched)
    expected = pair_losses(edges, logits.float(), bboxes.float(), gts, loss_bbox)
    assert seen == [torch.float32] * 2
    for mine, theirs in zip(found, expected):
        assert mine.dtype == torch.float32 and torch.equal(mine, theirs)


def test_the_inputs_stay_as_they_are():
    torch.manual_seed(0)
    for num_edges in (30, 70):
        edges, labels = random_edges(50, 4, num_edges, 5)
        logits = torch.randn(50, 5)
        before = logits.clone()
        pair_classification_loss(edges, logits, labels)
        assert torch.equal(logits, before)


def test_joint_loss_weighs_the_box_loss():
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    assert joint_loss(one, two).item() == 3 and joint_loss(one, two, 0.5).item() == 2


def test_rows_are_taken_in_blocks_on_the_cpu():
    assert joint_loss_module._block_size(torch.empty(10**4, 2**10)) == 2**7
    assert joint_loss_module._block_size(torch.empty(3, 2**18)) == 1
    assert joint_loss_module._block_size(SimpleNamespace(shape=(10**6, 80), is_cuda=True)) == 10**6
