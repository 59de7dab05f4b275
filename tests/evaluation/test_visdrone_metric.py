"""VisDroneMetric: the figures of VisDrone's toolkit, by hand and against CocoMetric's."""

import json

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS

from misalign_det.errors import InputError
from misalign_det.evaluation.visdrone_metric import covered_fraction

CLASSES = ("car", "van")


def write(path, boxes, regions=()):
    """Annotations of one image of 400 x 300; boxes are a label and xywh."""
    content = {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": 400, "height": 300, "ignored_regions": regions}
        ],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": label + 1, "bbox": list(map(float, box)),
             "area": box[2] * box[3], "iscrowd": 0}
            for i, (label, box) in enumerate(boxes, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return str(path)


def sample(detections):
    """What the detector gives for the image; detections are a label, xywh and a score."""
    boxes = np.array([box for _, box, _ in detections], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "img_id": 5,
        "ori_shape": (300, 400),
        "pred_instances": {
            "bboxes": boxes,
            "scores": np.array([score for *_, score in detections], dtype=np.float32),
            "labels": np.array([label for label, *_ in detections], dtype=int),
        },
    }


def evaluate(ann_file, detections, **kwargs):
    metric = METRICS.build({"type": "VisDroneMetric", "ann_file": ann_file, **kwargs})
    metric.dataset_meta = {"classes": CLASSES}
    metric.process({}, [sample(detections)])
    return metric.evaluate(1)


def evaluate_coco(ann_file, detections, **kwargs):
    import torch

    metric = CocoMetric(ann_file=ann_file, **kwargs)
    metric.dataset_meta = {"classes": CLASSES}
    found = sample(detections)
    found["pred_instances"] = {k: torch.as_tensor(v) for k, v in found["pred_instances"].items()}
    metric.process({}, [found])
    return metric.evaluate(1)


@pytest.fixture
def boxes():
    """200 cars that do not overlap."""
    return [(0, (16 * (i % 25), 20 * (i // 25), 12, 16)) for i in range(200)]


def test_classes_with_few_detections_against_cocos_figures(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", boxes[:20])
    moved = [
        (0, (x + i % 4, y, w, h), 1 - i / 100) for i, (_, (x, y, w, h)) in enumerate(boxes[:30])
    ]
    ours, theirs = evaluate(ann_file, moved), evaluate_coco(ann_file, moved)
    for name, other in (("AP", "mAP"), ("AP50", "mAP_50"), ("AP75", "mAP_75")):
        # The area under the curve against its height at 101 recalls.
        assert ours[f"visdrone/{name}"] == pytest.approx(theirs[f"coco/bbox_{other}"], abs=0.01)
    assert 0 < ours["visdrone/AP"] < ours["visdrone/AP50"]


def test_ap_is_the_area_under_the_curve_and_recalls_are_of_the_highest_scores(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", boxes[:4])
    # Right, wrong, right, wrong, right: precision 1, 1/2, 2/3, 1/2, 3/5 at recall 1/4, 1/2, 3/4.
    wrong = [(0, (300, 280, 12, 16)), (0, (330, 280, 12, 16))]
    rows = [boxes[0], wrong[0], boxes[1], wrong[1], boxes[2]]
    found = [(label, box, 0.9 - i / 10) for i, (label, box) in enumerate(rows)]
    figures = evaluate(ann_file, found, max_dets=(1, 3, 500))
    assert figures["visdrone/AP"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    recalls = [figures[f"visdrone/AR{k}"] for k in (1, 3, 500)]
    assert recalls == pytest.approx([0.25, 0.5, 0.75])


def test_a_class_counts_as_often_as_there_are_images_with_it(tmp_path):
    boxes = [(0, (0, 0, 20, 20)), (1, (100, 100, 20, 20))]
    ann_file = write(tmp_path / "a.json", boxes)
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"] += [{**content["images"][0], "id": i} for i in (6, 7)]
    content["annotations"] += [
        {**content["annotations"][0], "id": 10 + i, "image_id": i} for i in (6, 7)
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    metric = METRICS.build({"type": "VisDroneMetric", "ann_file": ann_file, "classwise": True})
    metric.dataset_meta = {"classes": CLASSES}
    found = sample([(0, boxes[0][1], 0.9)])
    metric.process({}, [{**found, "img_id": i} for i in (5, 6, 7)])
    figures = metric.evaluate(3)
    assert figures["visdrone/AP"] == 3 / 4  # three images with cars, one with a van
    assert figures["visdrone/car_precision"] == 1 and figures["visdrone/van_precision"] == 0


def test_objects_without_a_score_are_no_errors_but_are_missed(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", boxes[:4], [[300, 200, 60, 60]])
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    # As converted: the region is a crowd of each class, and no object.
    region = {**content["annotations"][1], "bbox": [300, 200, 60, 60], "iscrowd": 1}
    content["annotations"] += [{**region, "id": 8}, {**region, "id": 9, "category_id": 2}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = [(label, box, 0.9) for label, box in boxes[:4]]
    figures = evaluate(ann_file, found, classwise=True)
    assert figures["visdrone/AP"] == 3 / 4
    assert np.isnan(figures["visdrone/van_precision"])


def test_more_than_100_detections_count(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", boxes)
    perfect = [(label, box, 0.9) for label, box in boxes]
    assert evaluate(ann_file, perfect)["visdrone/AP"] == 1
    assert evaluate_coco(ann_file, perfect)["coco/bbox_mAP"] < 0.6
    assert evaluate_coco(ann_file, perfect, proposal_nums=(1, 10, 500))["coco/bbox_mAP"] == -1


def test_max_dets_are_of_all_classes_together(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", [*boxes[:9], (1, (5, 250, 40, 40))])
    found = [(label, box, 0.9) for label, box in boxes[:9]] + [(1, (5, 250, 40, 40), 0.1)]
    assert evaluate(ann_file, found, max_dets=10)["visdrone/AP"] == 1
    assert evaluate(ann_file, found, max_dets=9)["visdrone/AP"] == 0.5


def test_detections_half_inside_regions_do_not_count(tmp_path, boxes):
    wrong = [(0, (200, 200, 20, 20), 0.99), (0, (209, 240, 20, 20), 0.98)]
    found = [*wrong, *((label, box, 0.5) for label, box in boxes[:4])]
    without = evaluate(write(tmp_path / "a.json", boxes[:4]), found)
    one = evaluate(write(tmp_path / "b.json", boxes[:4], [[195, 195, 30, 30]]), found)
    # Two regions that each cover less than half of the second box cover half of it together.
    both = [[195, 195, 30, 30], [200, 235, 14, 30], [222, 235, 8, 30]]
    two = evaluate(write(tmp_path / "c.json", boxes[:4], both), found)
    found_aps = [figures["visdrone/AP"] for figures in (without, one, two)]
    assert found_aps[0] < found_aps[1] < found_aps[2] == 1


def test_fractions_of_boxes_at_the_border():
    boxes = np.array([[-10, 1, 10, 11], [90, 1, 130, 11], [0, 0, 0, 0]])
    # A box begins at pixel 1 and keeps its width; a part outside the image is not covered.
    assert covered_fraction(boxes, np.array([[-5, -5, 200, 50]]), (50, 100)).tolist() == [
        1,
        0.25,
        1,
    ]
    # Pixels 10 to 20 of a region that begins at 10: one more than its width.
    beside = np.array([[9, 9, 19, 19], [20, 9, 30, 19], [19, 9, 29, 19], [0, 9, 10, 19]])
    found = covered_fraction(beside, np.array([[10, 1, 20, 40]]), (50, 100))
    assert found.tolist() == [1, 0, 0.1, 0.2]
    assert covered_fraction(boxes, np.zeros((0, 4)), (50, 100)).tolist() == [0, 0, 0]


def test_nothing_found_and_images_that_are_not_there(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", boxes[:4])
    assert evaluate(ann_file, [])["visdrone/AP"] == 0
    metric = METRICS.build({"type": "VisDroneMetric", "ann_file": ann_file})
    metric.dataset_meta = {"classes": CLASSES}
    with pytest.raises(InputError, match="no image with the id 7"):
        metric.compute_metrics([(7, *sample([])["pred_instances"].values())])
    with pytest.raises(ValueError, match="max_dets must be at least 1"):
        METRICS.build({"type": "VisDroneMetric", "ann_file": ann_file, "max_dets": 0})


def test_no_images_and_images_without_a_size(tmp_path, boxes):
    ann_file = write(tmp_path / "a.json", boxes[:4])
    metric = METRICS.build({"type": "VisDroneMetric", "ann_file": ann_file})
    metric.dataset_meta = {"classes": CLASSES}
    with pytest.raises(InputError, match="no image to evaluate"):
        metric.compute_metrics([])
    content = json.loads((tmp_path / "a.json").read_text())
    del content["images"][0]["width"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a.json: 1 images have no width or height \(ids 5\)"):
        evaluate(ann_file, [])
