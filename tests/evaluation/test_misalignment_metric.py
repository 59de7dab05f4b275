"""MisalignmentMetric on a set made by hand, against pycocotools, and on awkward detectors."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import META, detections, evaluate, sample
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator

import misalign_det  # noqa: F401
from misalign_det.engine.annotation_checks import InputError


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
    with pytest.raises(InputError, match="'gnu'"):
        evaluator.evaluate(1)
    for options in (dict(min_iou=0.05), dict(bins=0), dict(calibration_iou=0)):
        with pytest.raises(ValueError, match=next(iter(options))):
            METRICS.build(dict(type="MisalignmentMetric", ann_file=ann_file, **options))
