"""Clusters of greedy NMS: a plain loop, mmcv's nms_match, and the threshold of the IoU."""

import numpy as np
import pytest
from helpers.nms_scenes import random_boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from misalign_det.models.post_processing import nms_match


def suppressors_by_loop(boxes, threshold, offset):
    """Greedy NMS of sorted boxes, one box at a time in float64."""
    boxes = boxes.double().numpy()
    extent = boxes[:, 2:] - boxes[:, :2] + offset
    suppressor = np.full(len(boxes), -1)
    for i, box in enumerate(boxes):
        if suppressor[i] >= 0:
            continue
        suppressor[i] = i
        overlap = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + offset
        inter = overlap.clip(0).prod(1)
        union = extent[i].prod() + extent.prod(1) - inter
        with np.errstate(all="ignore"):
            suppressor[(inter / union > threshold) & (suppressor < 0)] = i
    return suppressor


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(0, 1000),
    st.sampled_from([0.05, 0.25, 0.5, 0.6, 0.75, 1.0]),
    st.sampled_from([0, 1]),
    st.sampled_from([0, 1000]),
    st.sampled_from([50, nms_match.MAX_PAIRS]),
)
def test_both_algorithms_equal_a_plain_loop(num, seed, threshold, offset, shift, pairs):
    """mmcv's nms_match, and pairs of boxes near each other, in parts or at once."""
    boxes, _, labels = random_boxes(num, seed)
    # Exact in float32, with boxes that are points, lines, equal or of negative extent.
    boxes = ((boxes + (labels * shift)[:, None]) * 2).round()
    boxes[::17, 2:] = boxes[::17, :2]
    boxes[5::23, 2] = boxes[5::23, 0] - 3
    boxes[7::29] = boxes[: len(boxes[7::29])]
    expected = suppressors_by_loop(boxes, np.float32(threshold), offset)
    array = boxes.numpy()
    assert (nms_match._compare_all(array, threshold, offset) == expected).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms_match, "MIN_SWEEP", 0)
        patch.setattr(nms_match, "FEW_PAIRS", num)
        patch.setattr(nms_match, "MAX_PAIRS", pairs)
        patch.delattr(nms_match, "_compare_all")
        assert (nms_match.suppressors(array, threshold, offset) == expected).all()


def test_many_boxes_on_few_objects_are_not_compared_pair_by_pair(monkeypatch):
    boxes, _, _ = random_boxes(2000, objects=2)
    expected = nms_match._compare_all(boxes.numpy(), 0.3, 0)
    monkeypatch.delattr(nms_match, "_overlapping")
    assert (nms_match.suppressors(boxes.numpy(), 0.3) == expected).all()


def test_many_boxes_on_many_objects_are_compared_with_their_neighbours(monkeypatch):
    boxes, _, _ = random_boxes(2000, objects=900, size=100.0)
    expected = nms_match._compare_all(boxes.numpy(), 0.8, 0)
    compare_all, seen = nms_match._compare_all, []
    monkeypatch.setattr(
        nms_match, "_compare_all", lambda b, *args: seen.append(len(b)) or compare_all(b, *args)
    )
    assert (nms_match.suppressors(boxes.numpy(), 0.8) == expected).all()
    assert seen == [250]


def by_both_algorithms(monkeypatch, boxes, threshold):
    """The suppressors by mmcv's nms_match, and by pairs of boxes near each other."""
    array = np.array(boxes, np.float32)
    compared = nms_match._compare_all(array, threshold, 0).tolist()
    monkeypatch.setattr(nms_match, "MIN_SWEEP", 0)
    monkeypatch.setattr(nms_match, "FEW_PAIRS", len(boxes))
    return compared, nms_match.suppressors(array, threshold).tolist()


def test_an_overlap_at_the_threshold_does_not_suppress(monkeypatch):
    """3 px of 5 in common are 0.6 in float32, which is more than 0.6 in float64."""
    boxes = [[0, 0, 4, 1], [1, 0, 5, 1]]
    assert by_both_algorithms(monkeypatch, boxes, 0.6) == ([0, 1], [0, 1])
    assert by_both_algorithms(monkeypatch, boxes, 0.59) == ([0, 0], [0, 0])


def test_rounding_of_the_reach_loses_no_pair(monkeypatch):
    """An IoU that exceeds 0.5 in float32 alone: the centres lie as far apart as may be."""
    boxes = [[231, 231, 271, 236], [244.3333282470703, 231, 284.3333435058594, 236]]
    assert by_both_algorithms(monkeypatch, boxes, 0.5) == ([0, 0], [0, 0])
