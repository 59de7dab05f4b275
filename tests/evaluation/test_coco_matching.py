"""Matching of detections with GTs by hand."""

import numpy as np
from helpers.evaluation_cases import ROWS, ground_truth, match

from misalign_det.evaluation.coco_matching import MatchedDetections, match_image


def test_matching_by_hand():
    found = match(ROWS)
    np.testing.assert_allclose(found.overlaps, [0.8, 1, 0.3, 0, 0])
    # The box with the highest score is matched although the second one fits better.
    assert found.true_positive.tolist() == [True, False, False, False, False]
    np.testing.assert_allclose(found.matched_overlaps, [0.8, 0, 0, 0, 0])
    assert set(found.image_ids) == {7} and not found.ignored.any()


def test_a_matched_gt_leaves_the_next_best_one():
    gts = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], float)
    found = match([(0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0)], gts=gts,
                  labels=np.array([0, 0]))  # fmt: skip
    assert found.true_positive.tolist() == [True, True]
    np.testing.assert_allclose(found.matched_overlaps, [1, 9 / 11])


def test_boxes_in_a_crowd_region_are_ignored():
    crowd = np.array([False, False, True])
    rows = [(41, 1, 44, 4, 0.9, 1), (44, 1, 60, 4, 0.9, 1), (0, 0, 10, 10, 0.9, 0)]
    found = match(rows, crowd=crowd)
    # Wholly inside it; 6 of 16 pixels inside; not near it.
    assert found.ignored.tolist() == [True, False, False]
    assert found.overlaps.tolist() == [0, 0, 1]


def test_boxes_of_equal_score_keep_their_order():
    scores = np.resize([0.4, 0.5, 0.3], 1000)  # a sort that is not stable takes another one first
    found = match([(0, 0, 10, 10, score, 0) for score in scores])
    assert np.flatnonzero(found.true_positive).tolist() == [1]


def test_a_matched_box_inside_a_crowd_region_counts():
    gts = np.array([[0, 0, 10, 10], [0, 0, 30, 30]], float)
    rows = [(0, 0, 10, 10, 0.9, 0), (0, 0, 10, 9, 0.8, 0)]
    found = match(rows, crowd=np.array([False, True]), gts=gts, labels=np.array([0, 0]))
    assert found.true_positive.tolist() == [True, False]
    assert found.ignored.tolist() == [False, True]


def test_a_crowd_region_is_never_matched():
    crowd = np.array([True, True, True])
    found = match(ROWS, crowd=crowd)
    assert not found.true_positive.any() and (found.overlaps == 0).all()


def test_ids_of_images_keep_their_type():
    box = np.array([[0.0, 0, 1, 1]]), np.array([0.5]), np.array([0])
    parts = [match_image(name, *box, ground_truth())[0] for name in (3, "003", "img")]
    assert MatchedDetections.join(parts).image_ids.tolist() == [3, "003", "img"]
    nothing = MatchedDetections.join([])
    assert len(nothing) == 0 and nothing.image_ids.dtype == object


def test_one_matching_for_several_thresholds():
    rows = np.array(ROWS)
    image = 7, rows[:, :4], rows[:, 4], rows[:, 5].astype(int)
    together = match_image(*image, ground_truth(), (0.5, 0.1, 0.9))
    for threshold, mine in zip((0.5, 0.1, 0.9), together):
        (alone,) = match_image(*image, ground_truth(), (threshold,))
        for name, value in vars(alone).items():
            assert (getattr(mine, name) == value).all(), name
    assert [part.true_positive.sum() for part in together] == [1, 1, 1]
    assert together[2].matched_overlaps.tolist() == [0, 1, 0, 0, 0]
