"""Which boxes count: the check and mmdet's CocoDataset must agree, box by box."""

import contextlib
import io

import pytest
import torch
from helpers.coco_set import CLASSES, CocoSet
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS

from misalign_det.datasets.annotation_checks import Remark

WHERE, VAL = "train_dataloader.dataset", ("val",)


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


def test_boxes_without_area_or_outside_are_counted_and_mmdet_skips_just_those(good):
    first = good.content["annotations"][0]
    for number, box in enumerate(
        [
            [5, 5, 0, 10],
            [5, 5, 10, 0.5],  # no area
            [70, 5, 10, 10],
            [-20, 5, 10, 10],  # outside 64 x 48
            [60, 40, 10, 10],
            [-3, 0, 10, 10],
        ]
    ):  # over the border
        good.content["annotations"].append({**first, "id": 100 + number, "bbox": box})
    good.content["annotations"].append({**first, "id": 106, "area": 0})
    notes = good.write().notes()
    assert len(notes) == 3
    assert "3 of 11 boxes have no area" in notes[0] and "skipped" in notes[0]
    assert "ids 100, 101, 106" in notes[0]
    assert "2 of 11 boxes lie outside their image and are skipped" in notes[1]
    assert "ids 102, 103" in notes[1]
    assert "2 of 11 boxes extend beyond their image and are clipped" in notes[2]
    data = DATASETS.build(good.dataset())
    assert sum(len(data.get_data_info(i)["instances"]) for i in range(4)) == 11 - 3 - 2


@pytest.mark.parametrize(
    ("keep", "fate"),
    [(False, "are kept as background"), (True, "are left out (filter_empty_gt=True)")],
)
def test_images_without_objects_are_counted(good, keep, fate):
    del good.content["annotations"][1:3]
    settings = {"filter_empty_gt": keep, "min_size": 32}
    notes = good.write().notes(filter_cfg=settings)
    assert notes == [f"{WHERE}: 2 of 4 images have no objects and {fate}: 1.jpg, 2.jpg."]
    assert len(DATASETS.build(good.dataset(filter_cfg=settings))) == (2 if keep else 4)


def test_no_usable_box_at_all(good):
    for annotation in good.content["annotations"]:
        annotation["bbox"] = [5, 5, 0, 0]
    good.write()
    said = good.fault()
    assert "has no object to train on" in said and "4 of 4 boxes have no area" in said


def test_all_images_too_small(good):
    said = good.fault(filter_cfg={"min_size": 100})
    assert "has no object to train on" in said
    assert "4 of 4 images have a side below min_size=100" in said


def seen_by_mmdet(good, **kwargs):
    """Number of boxes that mmdet's dataset gives, and of those to be ignored."""
    data = DATASETS.build(good.dataset(**kwargs))
    found = [item for i in range(len(data)) for item in data.get_data_info(i)["instances"]]
    return len(found), sum(item["ignore_flag"] for item in found)


# --- the borders of the rules ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "used", "word"),
    [
        ({"bbox": [5, 5, 1, 10]}, True, None),
        ({"bbox": [5, 5, 0.99, 10]}, False, "no area"),
        ({"bbox": [5, 5, 10, 1]}, True, None),
        ({"bbox": [5, 5, 10, 0.99]}, False, "no area"),
        ({"area": 0}, False, "no area"),
        ({"area": 0.01}, True, None),
        ({"area": -1}, False, "no area"),
        ({"bbox": [63, 5, 10, 10]}, True, "beyond their image"),
        ({"bbox": [64, 5, 10, 10]}, False, "outside"),
        ({"bbox": [-10, 5, 10, 10]}, False, "outside"),
        ({"bbox": [5, 48, 10, 10]}, False, "outside"),
        ({"bbox": [5, -10, 10, 10]}, False, "outside"),
        ({"bbox": [54.5, 5, 10, 10]}, True, None),
        ({"bbox": [54.6, 5, 10, 10]}, True, "beyond their image"),
        ({"bbox": [-0.5, 5, 10, 10]}, True, None),
        ({"bbox": [-0.6, 5, 10, 10]}, True, "beyond their image"),
        ({"bbox": [5, 38.6, 10, 10]}, True, "beyond their image"),
        ({"ignore": 1}, False, "marked ignore"),
        ({"ignore": 0}, True, None),
        ({"ignore": 1, "bbox": [60, 5, 10, 10]}, False, "marked ignore"),
        ({"iscrowd": None}, True, None),
        ({"iscrowd": True}, True, "iscrowd"),
    ],
)
def test_one_box(good, change, used, word):
    good.content["annotations"][0].update(change)
    notes = good.write().notes()
    assert seen_by_mmdet(good)[0] == 3 + used
    counted = used and not change.get("iscrowd")
    assert any("1 of 4 images have no objects" in n for n in notes) is not counted
    rest = [n for n in notes if "no objects" not in n or "iscrowd" in n]
    assert len(rest) == bool(word) and all("1 of 4 boxes" in n and word in n for n in rest)


def test_crowds_teach_nothing(good):
    for annotation in good.content["annotations"][:3]:
        annotation["iscrowd"] = 1
    notes = good.write().notes()
    assert seen_by_mmdet(good) == (4, 3)
    assert "3 of 4 boxes are iscrowd: regions to be ignored, not objects" in notes[0]
    assert "3 of 4 images have no objects and are kept as background" in notes[1]
    assert all(isinstance(n, Remark) for n in notes)
    good.content["annotations"][3]["iscrowd"] = 1
    said = good.write().fault()
    assert "has no object to train on" in said and "4 of 4 boxes are iscrowd" in said
    assert "AP will be" not in said, "of validation alone"


def test_validation_without_an_object_that_counts(good):
    for annotation in good.content["annotations"]:
        annotation["iscrowd"] = 1
    notes = good.write().notes(VAL)
    assert any(
        f"none of the 4 boxes of {good.file} counts as an object; AP will be -1" in n
        and not isinstance(n, Remark)
        for n in notes
    )
    for annotation in good.content["annotations"]:
        annotation.update(iscrowd=0, bbox=[70, 5, 9, 9])
    assert any("none of the 4 boxes" in n and "AP will be 0." in n for n in good.write().notes(VAL))


def test_validation_without_a_box(good):
    """Twelve epochs later its AP would be -1."""
    good.content["annotations"] = []
    notes = [note for note in good.write().notes(VAL) if "AP will be" in note]
    (note,) = notes
    assert f"{good.file} has no box of the classes; AP will be -1. Annotate" in note
    assert not isinstance(note, Remark)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (
            {"bbox": [5, 5, 0, 10]},
            "have no area (a side below 1 pixel, or area 0), and count as mi",
        ),
        ({"bbox": [70, 5, 10, 10]}, "lie outside their image, and count as missed where AP is com"),
        ({"ignore": 1}, "are marked ignore, and count as missed where AP is computed from this f"),
        ({"bbox": [60, 5, 10, 10]}, "extend beyond their image, and detections, which do not, fit"),
    ],
)
def test_what_evaluation_does_with_a_box_that_training_leaves_out_or_clips(good, change, word):
    """pycocotools reads the file itself, and takes each box whole."""
    spoilt = good.content["annotations"][0]
    good.content["annotations"].append({**spoilt, "id": 99})
    detections = [dict(a) for a in good.content["annotations"][:4]]
    spoilt.update(change)
    good.write()
    assert average_precision(good.file, detections) < 0.9
    (note,) = good.notes(VAL)
    assert f"1 of 5 boxes {word}" in note and "ids 10" in note and not isinstance(note, Remark)
    assert "skipped" not in note and "clipped" not in note
    spoilt["iscrowd"] = 1  # a region where nothing is missed
    good.write()
    assert average_precision(good.file, detections) == pytest.approx(1)
    assert not any("AP" in note for note in good.notes(VAL))


def average_precision(file, found):
    """AP of detections that have the boxes of annotations."""
    metric = CocoMetric(ann_file=str(file))
    metric.dataset_meta = {"classes": CLASSES}
    for box in found:
        x, y, w, h = box["bbox"]
        instances = {
            "bboxes": torch.tensor([[x, y, x + w, y + h]], dtype=torch.float),
            "scores": torch.tensor([0.9]),
            "labels": torch.tensor([box["category_id"] - 1]),
        }
        sample = {"img_id": box["image_id"], "ori_shape": (48, 64), "pred_instances": instances}
        metric.process({}, [sample])
    with contextlib.redirect_stdout(io.StringIO()):
        return metric.evaluate(len(found))["coco/bbox_mAP"]


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", ["0", "", [0]])
def test_flags_that_are_no_numbers(good, key, value):
    good.content["annotations"][2][key] = value
    said = good.write().fault()
    assert f"{key} of 1 of 4 annotations is not a number but {value!r} (annotation ids 12)" in said
    assert "any string as true" in said


def test_a_box_nested_once_more(good):
    for annotation in good.content["annotations"]:
        annotation["bbox"] = [annotation["bbox"]]
    said = good.write().fault()
    assert "4 annotations have a bbox that is not four finite numbers" in said
    assert "id 10, bbox [[5, 5, 10, 10]]. It is a list inside a list." in said


@pytest.mark.parametrize(
    "box",
    [
        ["5", "5", "10", "10"],
        [[5, 5], [10, 10]],
        "5 5 10 10",
        {},
        [5, 5, float("nan"), 10],
        [5, 5, float("inf"), 10],
    ],
)
def test_boxes_of_other_forms(good, box):
    for annotation in good.content["annotations"]:
        annotation["bbox"] = box
    said = good.write().fault()
    assert "4 annotations have a bbox that is not" in said and "nested" not in said


def test_huge_whole_numbers_are_numbers(good):
    good.content["annotations"][0]["bbox"] = [5, 5, 10**30, 10]
    assert "1 of 4 boxes extend beyond" in good.write().notes()[0]


# --- images ----------------------------------------------------------------------------------


def test_images_with_unusable_boxes_are_not_left_out_by_filter_empty_gt(good):
    """mmdet looks at whether an image has annotations, not at whether they are of use."""
    good.content["annotations"][0]["bbox"] = [5, 5, 0, 0]
    del good.content["annotations"][1]
    settings = {"filter_empty_gt": True, "min_size": 32}
    notes = good.write().notes(filter_cfg=settings)
    assert "1 of 4 images have no objects and are left out (filter_empty_gt=True): 1." in notes[1]
    assert "1 of 4 images have no objects and are kept as background: 0.jpg" in notes[2]
    assert not isinstance(notes[1], Remark) and isinstance(notes[2], Remark)
    assert len(DATASETS.build(good.dataset(filter_cfg=settings))) == 3


def test_validation_filters_nothing(good):
    del good.content["annotations"][1]
    settings = {"filter_empty_gt": True, "min_size": 100}
    notes = good.write().notes(("val",), filter_cfg=settings, test_mode=True)
    assert notes == [
        "val_dataloader.dataset: 1 of 4 images have no objects and are kept as background: 1.jpg."
    ]
    assert len(DATASETS.build(good.dataset(filter_cfg=settings, test_mode=True))) == 4


@pytest.mark.parametrize(("limit", "kept"), [(48, 4), (49, 3)])
def test_images_below_min_size(good, limit, kept):
    for image in good.content["images"][1:]:
        image.update(width=200, height=200)
    settings = {"min_size": limit}
    notes = [n for n in good.write().notes(filter_cfg=settings) if "below min_size" in n]
    assert len(DATASETS.build(good.dataset(filter_cfg=settings))) == kept
    assert (
        notes
        == [f"{WHERE}: 1 of 4 images have a side below min_size={limit} and are left out."][
            : 4 - kept
        ]
    )


def test_objects_on_images_that_are_left_out_do_not_count(good):
    del good.content["annotations"][1:]
    for image in good.content["images"][1:]:
        image.update(width=200, height=200)
    assert "has no object to train on" in good.write().fault(filter_cfg={"min_size": 49})


@pytest.mark.parametrize("ids", [2, 3])
def test_one_picture_under_several_ids(good, ids):
    for image in good.content["images"][1:ids]:
        image["file_name"] = "0.jpg"
    notes = good.write().notes()
    assert len(notes) == 1 and not isinstance(notes[0], Remark)
    assert f"1 pictures are listed more than once, under {ids} image ids: 0.jpg" in notes[0]
