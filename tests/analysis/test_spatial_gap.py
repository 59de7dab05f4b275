"""The two peaks of an object by hand."""

import math

import pytest
import torch
from mmengine.structures import InstanceData

from misalign_det.analysis.spatial_gap import SpatialGaps, size_class, spatial_gaps, summarise_gaps

# Two levels: a row of four locations at stride 8 and one at stride 16.
POINTS = torch.tensor([[4.0, 8], [12, 8], [20, 8], [28, 8], [16, 8]])
STRIDES = torch.tensor([8, 8, 8, 8, 16])
OBJECT = [0.0, 0, 24, 16]


def instances(boxes, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return InstanceData(bboxes=boxes, labels=torch.tensor(labels, dtype=torch.long))


def gaps(logits, widths, boxes=(OBJECT,), labels=(1,), **kwargs):
    """Class logits of class 1, and predicted boxes of these widths from the left edge."""
    both = torch.stack([torch.full((5,), 9.0), torch.tensor(logits, dtype=torch.float32)], 1)
    bboxes = torch.tensor([[0.0, 0, width, 16] for width in widths])
    return spatial_gaps(both, bboxes, POINTS, STRIDES, instances(list(boxes), list(labels)),
                        **kwargs)  # fmt: skip


def test_peaks_by_hand():
    # At stride 8 the class peaks at x=4 and the IoU at x=20; x=28 lies outside the object.
    found = gaps([2.0, 1, 0, 5, 1], [12, 18, 24, 24, 20])
    whole, fine, coarse = found
    assert (whole.stride, fine.stride, coarse.stride) == (0, 8, 16)
    assert fine.pixels == pytest.approx(16) and fine.strides == pytest.approx(2)
    assert fine.iou_at_class_peak == pytest.approx(0.5) and fine.best_iou == pytest.approx(1)
    assert coarse.pixels == 0 and coarse.best_iou == pytest.approx(20 / 24)
    assert whole.pixels == pytest.approx(16) and whole.same_level
    assert whole.size == "small" and whole.label == 1


def test_peaks_on_different_levels():
    whole = gaps([0.0, 1, 0, 5, 4], [12, 24, 12, 24, 20])[0]
    assert not whole.same_level and whole.pixels == pytest.approx(4)
    assert whole.strides == pytest.approx(0.25)  # of the class peak's level, 16
    assert whole.iou_at_class_peak == pytest.approx(20 / 24)


def test_nothing_inside_and_no_object():
    assert gaps([0.0] * 5, [8.0] * 5, boxes=[[100, 100, 104, 104]]) == []
    assert gaps([0.0] * 5, [8.0] * 5, boxes=[], labels=[]) == []


def test_a_location_on_the_border_is_outside():
    # x=4 lies on the left edge, x=24 would: the class peak at x=4 does not count.
    fine = gaps([5.0, 1, 0, 0, 0], [12, 18, 24, 24, 20], boxes=[[4.0, 0, 24, 16]])[1]
    assert fine.pixels == pytest.approx(8) and fine.iou_at_class_peak == pytest.approx(14 / 24)
    assert gaps([5.0] * 5, [24] * 5, boxes=[[4.0, 8, 24, 16]]) == []  # all lie at y=8
    assert gaps([5.0] * 5, [24] * 5, boxes=[[4.0, 0, 12, 16]]) == []  # x=4 and x=12
    assert gaps([5.0] * 5, [24] * 5, boxes=[[4.0, 0, 24, 8]]) == []


def test_the_objects_own_class_counts():
    first = gaps([0.0, 1, 2, 5, 1], [24, 8, 8, 8, 8], labels=(0,))[0]
    assert first.label == 0 and first.pixels == 0  # class 0 is equal everywhere: the first location
    both = gaps([2.0, 1, 0, 5, 1], [12, 18, 24, 24, 20], boxes=[OBJECT, OBJECT], labels=(0, 1))
    assert [(g.gt, g.label) for g in both[:2]] == [(0, 0), (1, 1)]
    assert both[1].pixels == pytest.approx(16)


def test_size_is_that_of_the_original_image():
    assert [size_class(a) for a in (32**2 - 1, 32**2, 96**2)] == ["small", "medium", "large"]
    assert size_class(float("inf")) == size_class(float("nan")) == "large"
    assert gaps([1.0] * 5, [8.0] * 5, scale=0.25)[0].size == "medium"  # 96 x 64 pixels
    assert gaps([1.0] * 5, [8.0] * 5, scale=0.5)[0].size == "medium"  # 48 x 32 pixels
    assert gaps([1.0] * 5, [8.0] * 5)[0].size == "small"


def test_summary():
    aligned, apart = gaps([2.0, 1, 0, 5, 1], [24, 8, 8, 8, 8]), gaps([2.0, 1, 0, 5, 1],
                                                                  [12, 18, 24, 24, 20])  # fmt: skip
    rows = {row["group"]: row for row in summarise_gaps([*aligned, *apart])}
    assert list(rows) == ["all levels", "stride 8", "stride 16", "small", "medium", "large"]
    assert rows["all levels"]["objects"] == rows["small"]["objects"] == 2
    assert rows["stride 8"]["strides"] == pytest.approx(1)  # median of 0 and 2
    assert rows["all levels"]["iou_at_class_peak"] == pytest.approx(0.75)
    assert rows["large"]["objects"] == 0 and math.isnan(rows["large"]["pixels"])
    assert summarise_gaps([])[0]["objects"] == 0


def test_summary_takes_medians_and_the_share_of_other_levels():
    aligned = gaps([2.0, 1, 0, 5, 1], [24, 8, 8, 8, 8])
    apart = gaps([2.0, 1, 0, 5, 1], [12, 18, 24, 24, 20])
    other = gaps([0.0, 1, 0, 5, 4], [12, 24, 12, 24, 20])
    rows = {row["group"]: row for row in summarise_gaps([*aligned, *aligned, *apart, *other])}
    whole = rows["all levels"]  # pixels 0, 0, 16, 4; strides 0, 0, 2, 0.25
    assert whole["pixels"] == pytest.approx(2) and whole["strides"] == pytest.approx(0.125)
    assert whole["other_level"] == pytest.approx(0.25)
    assert whole["best_iou"] == pytest.approx((1 + 1 + 1 + 1) / 4)
    poor = gaps([2.0, 1, 0, 5, 1], [12, 8, 8, 8, 8])  # 0.5 at best
    mixed = summarise_gaps([*aligned, *aligned, *poor])[0]
    assert mixed["best_iou"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert mixed["iou_at_class_peak"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert rows["stride 8"]["other_level"] == 0
    assert rows["small"]["objects"] == 4  # of all levels together, not of each


def test_the_accumulator_sums_up_all_images():
    both = torch.stack([torch.full((5,), 9.0), torch.tensor([2.0, 1, 0, 5, 1])], 1)
    gts = instances([OBJECT], [1])
    accumulator, expected = SpatialGaps(), []
    for width in (12.0, 24.0, 8.0):
        bboxes = torch.tensor([[0.0, 0, w, 16] for w in (width, 18, 24, 24, 20)])
        accumulator.update(both, bboxes, POINTS, STRIDES, gts, 0.25)
        expected += spatial_gaps(both, bboxes, POINTS, STRIDES, gts, 0.25)
    rows = {row["group"]: row for row in accumulator.compute()}
    assert rows["medium"]["objects"] == 3
    assert [repr(row) for row in rows.values()] == [repr(r) for r in summarise_gaps(expected)]
