"""Candidate pairs, ground truth of a batch, and the best candidates of each GT."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.assignment_scenes import grid, ground_truth
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.assigners.candidates import (
    BatchGroundTruth,
    build_candidate_pairs,
    select_top_candidates,
)


def test_pairs_by_hand():
    # Points at 4, 12, 20, 28. The first image has a box around the four points of the top left
    # corner, the second none, the third one around the single point (12, 20), index 9.
    gts = ground_truth([((0, 0, 16, 16), 1)], [], [((9, 17, 15, 23), 0)])
    pairs = build_candidate_pairs(grid(), gts)
    assert pairs.prior_inds.tolist() == [0, 1, 4, 5, 2 * 16 + 9]
    assert pairs.gt_inds.tolist() == [0, 0, 0, 0, 1]
    assert pairs.counts.tolist() == [4, 1]


def test_center_radius_keeps_locations_near_the_centre():
    gts = ground_truth([((0, 0, 32, 32), 0)])  # centre (16, 16); points 4 and 28 are 12 away
    strides = torch.full((16,), 8.0)
    assert len(build_candidate_pairs(grid(), gts, strides, center_radius=1.0)) == 4
    assert len(build_candidate_pairs(grid(), gts, strides, center_radius=1.6)) == 16
    with pytest.raises(ValueError, match="strides"):
        build_candidate_pairs(grid(), gts, center_radius=1.0)


def test_top_candidates_drop_non_finite_and_break_ties_by_location():
    gts = ground_truth([((0, 0, 16, 16), 0), ((0, 0, 32, 8), 0)])
    pairs = build_candidate_pairs(grid(), gts)  # 4 pairs, then the top row's 4
    losses = torch.tensor([2.0, 1.0, 1.0, math.nan, math.inf, 0.5, math.nan, -math.inf])
    top = select_top_candidates(pairs, losses, topk=3)
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
    pairs = build_candidate_pairs(points, gts)
    losses = torch.rand(len(pairs))
    dense = torch.full((50, len(points)), math.inf)
    dense[pairs.gt_inds, pairs.prior_inds] = losses
    top = select_top_candidates(pairs, losses, topk=35)
    assert torch.equal(top.losses, dense.topk(35, largest=False).values)


def test_top_candidates_of_losses_of_either_sign():
    """Sorted by the floats' bits: negative ones, both zeros, tiny ones and equal ones."""
    torch.manual_seed(0)
    gts = ground_truth([((0, 0, 200, 200), 0), ((0, 0, 90, 200), 0)])
    pairs = build_candidate_pairs(grid(size=25, stride=8), gts)
    losses = (torch.randn(len(pairs)) * 4).round() / 4
    losses[::5] *= 1e-40
    losses[::7] = -0.0
    top = select_top_candidates(pairs, losses, topk=300)
    for gt in range(2):
        own = losses[pairs.gt_inds == gt]
        assert torch.equal(top.losses[gt][: len(own)], own.sort(stable=True).values[:300])


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
    pairs = build_candidate_pairs(grid(), small, strides, center_radius=1.5)
    assert pairs.prior_inds.tolist() == [5]
    # 4 and 28 are exactly 1.5 strides from the centre of this one.
    large = ground_truth([((0, 0, 32, 32), 0)])
    assert len(build_candidate_pairs(grid(), large, strides, center_radius=1.5)) == 4
    # Each axis has its own centre.
    wide = ground_truth([((8, 0, 32, 16), 0)])  # centre (20, 8)
    pairs = build_candidate_pairs(grid(), wide, strides, center_radius=0.9)
    assert pairs.prior_inds.tolist() == [2, 6]


def test_equal_losses_stay_in_the_order_of_locations():
    gts = ground_truth([((0, 0, 400, 400), 0)])
    pairs = build_candidate_pairs(grid(size=50, stride=8), gts)
    losses = torch.zeros(len(pairs))
    losses[::2] = -0.0  # equal to 0.0
    top = select_top_candidates(pairs, losses, topk=2500)
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
