"""MisalignmentMetric by hand, against pycocotools, and for unusual detectors."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.evaluation_cases import META, detections, evaluate, sample
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

import misalign_det  # noqa: F401
from misalign_det.errors import InputError
from misalign_det.evaluation import MisalignmentMetric
from misalign_det.evaluation.coco_ap import index_annotations


def test_ap_is_that_of_mmdet(ann_file):
    found = detections()
    mine = evaluate(found, ann_file, classwise=True)
    theirs = evaluate(
        found, ann_file, CocoMetric(ann_file=ann_file, metric="bbox", classwise=True,
                                    format_only=False)
    )  # fmt: skip
    assert mine["misalignment/AP"] == pytest.approx(theirs["coco/bbox_mAP"], abs=6e-4)
    for name in ("cat", "dog"):
        theirs_of = theirs[f"coco/{name}_precision"]
        assert mine[f"misalignment/{name}/AP"] == pytest.approx(theirs_of, abs=6e-4)
    assert np.isnan(mine["misalignment/emu/AP"])


def test_ids_of_the_file_in_another_order_than_the_classes(ann_file, tmp_path):
    content = json.loads(Path(ann_file).read_text())
    ids = {old["id"]: new for old, new in zip(content["categories"], (30, 10, 20))}
    for category in content["categories"]:
        category["id"] = ids[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]
    mixed = tmp_path / "mixed.json"
    mixed.write_text(json.dumps(content))
    mine, expected = (evaluate(detections(), f, classwise=True) for f in (str(mixed), ann_file))
    assert mine.keys() == expected.keys()
    for name, value in expected.items():
        assert mine[name] == pytest.approx(value, nan_ok=True), name


def test_headroom_is_ap_with_the_ious_as_scores(ann_file):
    found = detections()
    mine = evaluate(found, ann_file)
    gts = {1: [(0, 0, 10, 10, 0), (20, 0, 30, 10, 0), (40, 0, 60, 20, 1)],
           2: [(5, 5, 35, 35, 0), (50, 50, 60, 80, 1)], 3: []}  # fmt: skip
    for part in found:
        pred = part["pred_instances"]
        for i, (box, label) in enumerate(zip(pred["bboxes"].double(), pred["labels"])):
            best = 0.0
            for *gt, gt_label in gts[part["img_id"]]:
                if gt_label == label:
                    wh = [min(box[2 + k], gt[2 + k]) - max(box[k], gt[k]) for k in (0, 1)]
                    inter = max(wh[0], 0) * max(wh[1], 0)
                    areas = (box[2] - box[0]) * (box[3] - box[1]), (gt[2] - gt[0]) * (gt[3] - gt[1])
                    best = max(best, float(inter / (sum(areas) - inter)))
            pred["scores"][i] = best
    theirs = evaluate(found, ann_file, CocoMetric(ann_file=ann_file, metric="bbox"))
    assert mine["misalignment/AP_by_iou"] == pytest.approx(theirs["coco/bbox_mAP"], abs=6e-4)
    headroom = mine["misalignment/AP_by_iou"] - mine["misalignment/AP"]
    assert mine["misalignment/headroom"] == pytest.approx(headroom) and headroom > 0.02
    # Ranked by IoU already, nothing is left to gain, and the correlation is perfect.
    again = evaluate(found, ann_file)
    assert again["misalignment/headroom"] == pytest.approx(0, abs=1e-9)
    assert again["misalignment/spearman"] == pytest.approx(1)


def test_counts_and_overall_figures(ann_file):
    rows = [(0, 0, 10, 8, 0.9, 0), (0, 0, 10, 10, 0.6, 0), (40, 0, 60, 6, 0.5, 1),
            (80, 80, 90, 90, 0.2, 2)]  # fmt: skip
    mine = evaluate([sample(1, rows), sample(2, []), sample(3, [])], ann_file, classwise=True)
    counts = {k: mine[f"misalignment/{k}"] for k in ("correct", "redundant", "error", "background")}
    assert counts == dict(correct=1, redundant=1, error=1, background=1)
    assert mine["misalignment/spearman"] == pytest.approx(-1)
    assert np.isnan(mine["misalignment/dog/spearman"])
    thresholded = evaluate([sample(1, rows), sample(2, []), sample(3, [])], ann_file, score_thr=0.4)
    assert thresholded["misalignment/background"] == 0


def test_a_detector_that_finds_nothing(ann_file):
    mine = evaluate([sample(i, []) for i in (1, 2, 3)], ann_file, classwise=True)
    assert mine["misalignment/AP"] == mine["misalignment/headroom"] == 0
    assert np.isnan(mine["misalignment/spearman"]) and np.isnan(mine["misalignment/laece"])
    assert mine["misalignment/correct"] == 0


def test_offline_from_a_pickle_is_the_same(ann_file, tmp_path):
    found = detections()
    live = evaluate(found, ann_file)
    path = tmp_path / "found.pkl"
    evaluate(found, ann_file, dict(type="DumpDetResults", out_file_path=str(path)))
    evaluator = Evaluator(dict(type="MisalignmentMetric", ann_file=ann_file))
    evaluator.dataset_meta = META
    offline = evaluator.offline_evaluate(pickle.loads(path.read_bytes()), chunk_size=2)
    assert offline == pytest.approx(live, nan_ok=True)


def test_bad_input_is_named(ann_file):
    with pytest.raises(InputError, match="image 99"):
        evaluate([sample(99, [(0, 0, 10, 8, 0.9, 0)])], ann_file)
    evaluator = Evaluator(dict(type="MisalignmentMetric", ann_file=ann_file))
    evaluator.dataset_meta = dict(classes=("cat", "gnu"))
    evaluator.process([sample(1, [])])
    with pytest.raises(InputError, match="has no category 'gnu'"):
        evaluator.evaluate(1)
    for options in (dict(min_iou=0.05), dict(bins=0), dict(calibration_iou=0)):
        with pytest.raises(ValueError, match=next(iter(options))):
            METRICS.build(dict(type="MisalignmentMetric", ann_file=ann_file, **options))


def metric_of(content, found, **options):
    """The metric over annotations in memory."""
    metric = MisalignmentMetric(index_annotations(content), **options)
    metric.dataset_meta = dict(classes=[c["name"] for c in content["categories"]])
    metric.process({}, found)
    return metric.compute_metrics(metric.results)


def one_class(*crowds):
    """Two objects of 10 x 10, and regions of many."""
    boxes = [(0, 0, 10, 10), (20, 0, 10, 10), *crowds]
    return dict(
        images=[dict(id=1)],
        categories=[dict(id=0, name="cat")],
        annotations=[
            dict(id=i, image_id=1, category_id=0, bbox=list(box), iscrowd=str(int(i > 1)))
            for i, box in enumerate(boxes)
        ],
    )


def test_defaults(ann_file):
    metric = METRICS.build(dict(type="MisalignmentMetric", ann_file=ann_file))
    assert (metric.score_thr, metric.min_iou, metric.error_iou) == (0.0, 0.5, 0.1)
    assert (metric.calibration_iou, metric.bins, metric.max_dets) == (0.1, 25, 100)
    assert metric.classwise is False


def test_thresholds_reach_every_figure():
    # IoU 0.5, 0.7, 0.9 and 0.2 with one object or the other.
    rows = [(0, 0, 10, 5, 0.5, 0), (0, 0, 10, 7, 0.3, 0), (20, 0, 30, 9, 0.9, 0),
            (20, 0, 30, 2, 0.8, 0)]  # fmt: skip
    found = [sample(1, rows)]
    keys = ("correct", "redundant", "error", "background")
    plain = metric_of(one_class(), found, classwise=True)
    assert [plain[k] for k in keys] == [plain[f"cat/{k}"] for k in keys] == [2, 1, 1, 0]
    strict = metric_of(one_class(), found, classwise=True, min_iou=0.6, error_iou=0.3)
    assert [strict[k] for k in keys] == [strict[f"cat/{k}"] for k in keys] == [2, 0, 1, 1]
    # IoU 0.5, 0.7, 0.9 rank 2, 1, 3 by score; from 0.6 on the two left agree.
    for prefix in ("", "cat/"):
        assert plain[f"{prefix}spearman"] == pytest.approx(0.5)
        assert strict[f"{prefix}spearman"] == pytest.approx(1)
    # A score at the threshold stays.
    exact = [sample(1, [(0, 0, 10, 10, 0.5, 0), (20, 0, 30, 10, 0.25, 0)])]
    assert metric_of(one_class(), exact, score_thr=0.5)["correct"] == 1
    assert metric_of(one_class(), exact, score_thr=0.25)["correct"] == 2


def test_calibration_uses_its_own_threshold_and_bins():
    # IoU 0.2: a true positive from 0.1 on, none at 0.5.
    found = [sample(1, [(0, 0, 10, 2, 0.25, 0), (20, 0, 30, 10, 0.75, 0)])]
    assert metric_of(one_class(), found)["laece"] == pytest.approx((0.05 + 0.25) / 2)
    assert metric_of(one_class(), found, bins=1)["laece"] == pytest.approx(abs(0.05 - 0.25) / 2)
    high = metric_of(one_class(), found, calibration_iou=0.5)["laece"]
    assert high == pytest.approx((0.25 + 0.25) / 2)


def test_boxes_an_image():
    found = [sample(1, [(0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 0)])]
    assert metric_of(one_class(), found)["AP"] == pytest.approx(1)
    assert metric_of(one_class(), found, max_dets=1)["AP"] == pytest.approx(51 / 101)


def test_what_lies_in_a_crowd_region_counts_nowhere():
    rows = [(0, 0, 10, 10, 0.9, 0), (20, 0, 30, 8, 0.8, 0)]
    extra = [(50, 0, 60, 10, 0.7, 0), (60, 0, 70, 10, 0.6, 0)]
    plain = metric_of(one_class(), [sample(1, rows)], classwise=True)
    crowded = metric_of(one_class((50, 0, 40, 40)), [sample(1, rows + extra)], classwise=True)
    assert crowded == pytest.approx(plain, nan_ok=True)
    assert metric_of(one_class(), [sample(1, rows + extra)])["background"] == 2


def test_headroom_counts_redundant_boxes_by_their_iou():
    """The better box has the lower score and comes second: ranked by IoU it is the first."""
    rows = [(0, 0, 10, 6, 0.9, 0), (0, 0, 10, 10, 0.8, 0), (20, 0, 30, 10, 0.7, 0)]
    found = metric_of(one_class(), [sample(1, rows)])
    assert found["AP_by_iou"] == pytest.approx(1) and found["headroom"] > 0.2


def test_a_single_class_may_be_a_string_and_labels_must_be_classes():
    metric = MisalignmentMetric(index_annotations(one_class()))
    metric.dataset_meta = dict(classes="cat")
    metric.process({}, [sample(1, [(0, 0, 10, 10, 0.9, 0)])])
    assert metric.compute_metrics(metric.results)["correct"] == 1
    metric.process({}, [sample(1, [(0, 0, 10, 10, 0.9, 1)])])
    with pytest.raises(InputError, match="label 1, but only 1 classes"):
        metric.compute_metrics(metric.results)
    for meta in ({}, dict(classes=()), None):
        metric.dataset_meta = meta
        with pytest.raises(InputError, match="class names"):
            metric.compute_metrics(metric.results)


def test_what_is_odd_is_warned_of(ann_file, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), "warning", said.append)
    evaluate([sample(1, [(0, 0, 10, 8, 0.9, 0)])], ann_file)
    assert said == []
    evaluate([sample(i, []) for i in (1, 2, 3)], ann_file)
    assert len(said) == 1 and "found nothing" in said[0]
    metric = MisalignmentMetric(ann_file)
    metric.dataset_meta = dict(classes=("dog", "cat"))
    metric.process({}, [sample(1, [(0, 0, 10, 10, 0.9, 1)])])
    assert metric.compute_metrics(metric.results)["correct"] == 1  # by name
    assert "in the file's" in said[-1]
