"""Figures of an assignment by hand, and mmdet's assigners as references."""

import pytest
import torch
from mmdet.models.task_modules.assigners import ATSSAssigner, TaskAlignedAssigner
from mmengine.structures import InstanceData

from misalign_det.analysis.assignment.assignment_statistics import (
    ImageAssignment,
    agreement,
    assignment_scalars,
    reference_pairs,
)

# Stride 8: a 4 x 4 grid of 32 x 32 pixels; stride 16: 2 x 2.
POINTS = torch.tensor([(x * s + s / 2, y * s + s / 2) for s, n in ((8, 4), (16, 2))
                       for y in range(n) for x in range(n)])  # fmt: skip
STRIDES = torch.tensor([8.0] * 16 + [16.0] * 4)
GTS = torch.tensor([[0.0, 0, 20, 20], [10, 10, 32, 32]])


def image(pairs, gts=GTS, **kwargs):
    pairs = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return ImageAssignment(POINTS, STRIDES, gts, torch.arange(len(gts)) % 2, pairs[:, 0],
                           pairs[:, 1], **kwargs)  # fmt: skip


def test_by_hand():
    # Location 5, at (12, 12), lies in both boxes; 0 and 16 in the first, 15 in the second.
    scalars = assignment_scalars([image([(0, 0), (5, 0), (5, 1), (16, 0)]), image([(15, 1)])])
    assert scalars["positives_per_gt"] == pytest.approx(5 / 4)
    assert scalars["without_positive"] == pytest.approx(1 / 4)
    assert scalars["positives_per_gt_small"] == pytest.approx(5 / 4)
    assert "positives_per_gt_large" not in scalars and "threshold" not in scalars
    assert scalars["level_8"] == pytest.approx(4 / 5)
    assert scalars["level_16"] == pytest.approx(1 / 5)
    assert scalars["ambiguous"] == pytest.approx(1 / 4)  # of the locations 0, 5, 16; 15


def test_mixture_by_hand():
    none = -float("inf")  # a GT without candidates
    means = torch.tensor([[0.2, 0.9], [0.1, 0.8]])
    mixture = dict(thresholds=torch.tensor([0.3, 0.2]), means=means)
    empty = dict(thresholds=torch.tensor([none, none]), means=torch.zeros(2, 2))
    scalars = assignment_scalars([image([(0, 0)], **mixture), image([], **empty)])
    assert scalars["threshold"] == pytest.approx(0.25)
    assert scalars["low_mean"] == pytest.approx(0.15)
    assert scalars["high_mean"] == pytest.approx(0.85)
    assert "threshold" not in assignment_scalars([image([], **empty)])


def test_nothing():
    assert assignment_scalars([]) == {}
    assert assignment_scalars([image([], gts=GTS[:0])]) == {}
    assert agreement([image([], gts=GTS[:0])], "atss") is None


LARGE = torch.tensor([[0.0, 0, 32, 32], [0, 0, 64, 64]])


def test_agreement():
    atss = sorted(reference_pairs(image([], gts=LARGE), "atss"))
    assert atss  # ATSS gives something here
    assert agreement([image(atss, gts=LARGE)], "atss") == 1
    assert agreement([image(atss[:1], gts=LARGE), image(atss, gts=LARGE)], "atss") == pytest.approx(
        (1 + len(atss)) / (2 * len(atss))
    )
    assert agreement([image(atss, gts=LARGE)], "task_aligned") is None  # no predictions
    boxes = torch.cat([POINTS - 9, POINTS + 9], dim=1)
    torch.manual_seed(0)
    seen = dict(scores=torch.rand(20, 2), bboxes=boxes)
    aligned = sorted(reference_pairs(image([], gts=LARGE, **seen), "task_aligned"))
    assert aligned and agreement([image(aligned, gts=LARGE, **seen)], "task_aligned") == 1


def test_locations_in_any_order():
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    mixed = image([], gts=LARGE)
    mixed.points, mixed.strides = POINTS[order], STRIDES[order]
    theirs = {(int(order[prior]), gt) for prior, gt in reference_pairs(mixed, "atss")}
    assert theirs == reference_pairs(image([], gts=LARGE), "atss")


def test_a_location_on_a_border_is_inside_no_box():
    # Location 5, at (12, 12), lies on a corner of the second box; 0, at (4, 4), of the third.
    gts = torch.tensor([[0.0, 0, 20, 20], [12, 12, 30, 30], [0, 0, 4, 4]])
    scalars = assignment_scalars([image([(5, 0), (0, 0)], gts=gts)])
    assert scalars["ambiguous"] == 0
    gts = torch.tensor([[0.0, 0, 20, 20], [11.5, 11.5, 30, 30], [0, 0, 4.5, 4.5]])
    assert assignment_scalars([image([(5, 0), (0, 0)], gts=gts)])["ambiguous"] == 1


def test_sizes_and_objects_are_counted_over_the_batch():
    """Of 32 x 32 an object is medium, of 96 x 96 large."""
    gts = torch.tensor([[0.0, 0, 31, 32], [0, 0, 32, 32], [0, 0, 96, 96]])
    scalars = assignment_scalars([image([(0, 0), (1, 1), (2, 1), (3, 1)], gts=gts),
                                  image([(0, 2), (1, 2)], gts=gts)])  # fmt: skip
    assert scalars["positives_per_gt_small"] == pytest.approx(1 / 2)
    assert scalars["positives_per_gt_medium"] == pytest.approx(3 / 2)
    assert scalars["positives_per_gt_large"] == pytest.approx(2 / 2)
    assert scalars["without_positive"] == pytest.approx(3 / 6)


def grid(**kwargs):
    """64 locations at stride 8, 16 at 16, over an object that covers most of them."""
    points = torch.tensor([(x * s + s / 2, y * s + s / 2) for s, n in ((8, 8), (16, 4))
                           for y in range(n) for x in range(n)])  # fmt: skip
    strides = torch.tensor([8.0] * 64 + [16.0] * 16)
    gts = torch.tensor([[2.0, 3, 61, 58], [20, 20, 45, 40]])
    empty = torch.zeros(0, dtype=torch.long)
    return ImageAssignment(points, strides, gts, torch.tensor([0, 1]), empty, empty, **kwargs)


def test_references_are_mmdets_with_the_documented_settings():
    """ATSS: anchors of 8 strides, 9 candidates; TaskAligned: 13 candidates, alpha 1, beta 6."""
    one = grid()
    half = 4 * one.strides[:, None]
    anchors = InstanceData(priors=torch.cat([one.points - half, one.points + half], dim=1))
    gts = InstanceData(bboxes=one.gt_bboxes, labels=one.gt_labels)
    result = ATSSAssigner(topk=9).assign(anchors, [64, 16], gts)
    assert reference_pairs(one, "atss") == positives(result)
    torch.manual_seed(0)
    noise = torch.rand(80, 4) * 8
    seen = dict(scores=torch.rand(80, 2), bboxes=one.gt_bboxes[:1] + noise)
    one = grid(**seen)
    priors = torch.cat([one.points, one.strides[:, None].expand(-1, 2)], 1)
    pred = InstanceData(priors=priors, **seen)
    result = TaskAlignedAssigner(topk=13).assign(pred, gts, alpha=1, beta=6)
    assert len(positives(result)) > 9
    assert reference_pairs(one, "task_aligned") == positives(result)


def positives(result):
    inds = result.gt_inds
    return {(p, int(inds[p]) - 1) for p in range(len(inds)) if inds[p] > 0}


def test_agreement_counts_pairs_not_locations():
    atss = sorted(reference_pairs(image([], gts=LARGE), "atss"))
    other = [(prior, 1 - gt) for prior, gt in atss]
    expected = len(set(atss) & set(other)) / len(set(atss) | set(other))
    assert agreement([image(other, gts=LARGE)], "atss") == pytest.approx(expected) and expected < 1
