"""Counts, correlation and calibration by hand, and against SciPy."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation_cases import GT, META, ROWS, detections, evaluate, ground_truth, match
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from misalign_det.evaluation import coco_matching
from misalign_det.evaluation.coco_ap import index_annotations, load_annotations
from misalign_det.evaluation.coco_matching import MatchedDetections, match_image
from misalign_det.evaluation.score_alignment import (
    ScoreAlignment,
    box_counts,
    localisation_aware_ece,
    score_iou_correlation,
)


def test_counts_by_hand():
    assert box_counts(match(ROWS)) == dict(correct=1, redundant=1, error=1, background=2)
    assert box_counts(match([])) == dict(correct=0, redundant=0, error=0, background=0)


def test_correlation_is_scipys():
    rng = np.random.default_rng(0)
    rows = [(0, 0, 10, height, score, 0)
            for height, score in zip(rng.uniform(3, 10, 40), rng.uniform(0, 1, 40))]  # fmt: skip
    found = match(rows)
    mine = score_iou_correlation(found)
    near = found.overlaps >= 0.5
    assert 10 < near.sum() < 40
    pair = found.scores[near], found.overlaps[near]
    assert mine["spearman"] == pytest.approx(stats.spearmanr(*pair)[0])
    assert mine["pearson"] == pytest.approx(stats.pearsonr(*pair)[0])


@pytest.mark.parametrize(
    "heights, scores, expected",
    [
        ([10, 9, 8], [0.9, 0.8, 0.1], 1),  # aligned
        ([10, 9, 8], [0.1, 0.8, 0.9], -1),
        ([10], [0.9], None),  # one box
        ([10, 9], [0.5, 0.5], None),  # equal scores
        ([9, 9], [0.4, 0.5], None),  # equal IoU
        ([2, 1], [0.4, 0.5], None),  # none found an object
        ([], [], None),
    ],
)
def test_correlation_of_few(heights, scores, expected):
    rows = [(0, 0, 10, height, score, 0) for height, score in zip(heights, scores)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy's, of a correlation that is not defined
        mine = score_iou_correlation(match(rows))["spearman"]
    assert np.isnan(mine) if expected is None else mine == pytest.approx(expected)


def test_calibration_by_hand():
    # Bins of 0.5. Low: scores 0.2 and 0.4, IoU 0 and 1 (found) -> |0.6 - 1| / 4 = 0.1.
    # High: 0.8 and 0.6, IoU 0.8 and 0 (the object is taken) -> |1.4 - 0.8| / 4 = 0.15.
    rows = [
        (100, 0, 110, 10, 0.2, 0),
        (20, 0, 30, 10, 0.4, 0),
        (0, 0, 10, 8, 0.8, 0),
        (0, 0, 10, 9, 0.6, 0),
    ]
    assert localisation_aware_ece(match(rows), bins=2) == pytest.approx(0.25)
    assert localisation_aware_ece(match(rows), bins=1) == pytest.approx(0.2 / 4)
    assert np.isnan(localisation_aware_ece(match([])))
    # A detector whose score is its IoU, one box an object, is calibrated.
    perfect = [(0, 0, 10, 8, 0.8, 0), (20, 0, 30, 9, 0.9, 0), (60, 0, 70, 10, 0.0, 0)]
    assert localisation_aware_ece(match(perfect)) == pytest.approx(0)


def test_an_iou_at_the_threshold_is_enough():
    """A box of half the object: IoU 0.5."""
    found = match([(0, 0, 10, 5, 0.9, 0), (0, 0, 10, 5, 0.8, 0), (0, 0, 10, 1, 0.7, 0)])
    assert found.true_positive.tolist() == [True, False, False]
    assert found.matched_overlaps.tolist() == [0.5, 0, 0]
    # The second reaches 0.5, too, on an object that is taken; 0.1 alone is background.
    assert box_counts(found) == dict(correct=1, redundant=1, error=0, background=1)
    # Two boxes, of IoU 0.5 and 1, are enough for a correlation.
    pair = match([(0, 0, 10, 5, 0.2, 0), (20, 0, 30, 10, 0.9, 0)])
    assert score_iou_correlation(pair)["spearman"] == pytest.approx(1)
    boxes = np.array([[0, 0, 10, 4.9], [20, 0, 30, 5]])
    (default,) = match_image(7, boxes, np.ones(2), np.zeros(2, int), ground_truth())
    assert default.true_positive.tolist() == [False, True]
    # Half inside a crowd region is inside.
    crowd = np.array([False, False, True])
    assert match([(45, 0, 55, 10, 0.9, 1)], crowd=crowd).ignored.tolist() == [True]


def test_bins_of_the_calibration_error():
    """By default 25: 0.941 lies in the last but one, 0.961 and 0.99 together in the last."""
    rows = [(0, 0, 10, 10, 0.941, 0), (100, 0, 110, 10, 0.961, 0), (20, 0, 30, 10, 0.99, 0)]
    expected = (abs(0.941 - 1) + abs(0.961 + 0.99 - 1)) / 3
    assert localisation_aware_ece(match(rows)) == pytest.approx(expected)
    # 0.9 and 0.93 lie in two bins, as they would not of 10, 15, 20 or 30.
    rows = [(0, 0, 10, 10, 0.9, 0), (100, 0, 110, 10, 0.93, 0)]
    assert localisation_aware_ece(match(rows)) == pytest.approx((0.1 + 0.93) / 2)
    # A score of 1 belongs to the last bin.
    rows = [(0, 0, 10, 9, 1.0, 0), (20, 0, 30, 10, 0.97, 0)]
    assert localisation_aware_ece(match(rows)) == pytest.approx(abs(0.1 - 0.03) / 2)


boxes = st.tuples(
    st.integers(0, 40), st.integers(0, 10), st.integers(1, 15), st.integers(1, 15),
    st.integers(0, 20), st.integers(0, 1),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, max_size=12), st.sampled_from([0.1, 0.5, 0.75]))
def test_properties(rows, threshold):
    rows = [(x, y, x + w, y + h, score / 20, label) for x, y, w, h, score, label in rows]
    found = match(rows, threshold)
    counts = box_counts(found, threshold, error_iou=0.1)
    assert sum(counts.values()) == len(found) == len(rows)
    assert counts["correct"] <= len(GT)
    assert (found.matched_overlaps <= found.overlaps + 1e-12).all()
    assert (found.overlaps[found.true_positive] >= threshold).all()
    joined = MatchedDetections.join([found, match([]), found])
    assert len(joined) == 2 * len(found)


def test_each_image_is_matched_once(ann_file, monkeypatch):
    calls = []
    pairwise_iou = coco_matching.pairwise_iou
    monkeypatch.setattr(coco_matching, "pairwise_iou",
                        lambda *args: (calls.append(1), pairwise_iou(*args))[1])  # fmt: skip
    alignment = ScoreAlignment(load_annotations(ann_file), META["classes"])
    found = detections()
    for sample in found:
        alignment.update(sample["img_id"], sample["pred_instances"])
    assert len(calls) == len(found)
    result = alignment.compute()
    assert len(calls) == len(found)
    assert len(result.detections) == sum(len(s["pred_instances"]["scores"]) for s in found)
    # The metric's figures are these.
    metric = evaluate(found, ann_file, classwise=True)
    assert {f"misalignment/{k}": v for k, v in result.metrics(classwise=True).items()} == (
        pytest.approx(metric, nan_ok=True)
    )
    assert result.metrics(classwise=False) == result.overall
    assert list(result.per_class) == ["cat", "dog", "emu"]


@pytest.mark.parametrize("most", [100, 120])
def test_ap_by_iou_is_of_the_boxes_that_count(most):
    """Of 250 boxes in an image, those of the lowest scores fit best and do not count."""
    content = dict(images=[dict(id=1)], categories=[dict(id=1, name="x"), dict(id=2, name="y")],
                   annotations=[dict(id=i, image_id=1, category_id=1 + i % 2, area=100,
                                     bbox=[20 * i, 0, 10, 10]) for i in range(500)])  # fmt: skip
    i = np.arange(500)
    height = np.where(i < 2 * most, 6, 10)
    boxes = np.stack([20 * i, 0 * i, 20 * i + 10, height], axis=1).astype(float)
    alignment = ScoreAlignment(index_annotations(content), ("x", "y"), max_dets=most)
    alignment.update(1, dict(bboxes=boxes, scores=np.linspace(1, 0.1, 500), labels=i % 2))
    found = alignment.compute().overall
    assert found["AP_by_iou"] == pytest.approx(found["AP"]) and found["headroom"] == 0
    # IoU 0.6 counts at 3 of 10 thresholds, and `most` of 250 objects are found.
    assert found["AP"] == pytest.approx(0.3 * (most / 250), abs=0.005)


# Conversions to arrays, checks, the selection of rows, and what reads annotations alone.
NOT_COUNTED = {
    "to_numpy", "_xywh", "check_labels", "check_images", "__getitem__", "__len__",
    "image_ground_truth", "is_crowd", "_numbered", "_indexed",
}  # fmt: skip
FIGURES = {"score_iou_correlation", "box_counts", "localisation_aware_ece", "matched_boxes"}


def test_a_detection_passes_eight_functions_on_its_way_to_a_figure(ann_file):
    alignment = ScoreAlignment(load_annotations(ann_file), META["classes"])
    package = str(Path(coco_matching.__file__).parents[1])
    stack, passed, chains = [], set(), {}

    def record(frame, event, argument):
        name = frame.f_code.co_name
        counts = frame.f_code.co_filename.startswith(package) and name not in NOT_COUNTED
        if not counts or name.startswith("<") or event not in ("call", "return"):
            return
        if event == "return":
            stack.pop()
            return
        stack.append(name)
        if name in FIGURES:
            chains[name] = tuple(stack)
        elif stack[0] == "update" or name == "join":
            passed.add(name)

    found = detections()
    sys.setprofile(record)
    try:
        for sample in found:
            alignment.update(sample["img_id"], sample["pred_instances"])
        alignment.compute()
    finally:
        sys.setprofile(None)
    assert set(chains) == FIGURES
    assert passed == {"update", "match_image", "pairwise_iou", "_greedy_match", "join"}
    assert all(chain[0] == "compute" for chain in chains.values())
    assert max(len(passed) + len(chain) for chain in chains.values()) == 8
