"""What a COCO file must have to be evaluated with: objects that a detector can find, whole."""

import contextlib
import io
import json

import pytest
import torch
from helpers.data_folders import CLASSES, coco_of, write_folder, write_image, write_text
from mmdet.evaluation import CocoMetric

from misalign_det.apis.own_data.conversion import convert
from misalign_det.datasets.formats import read_folder
from misalign_det.datasets.formats.export import export_coco

GOOD = (16, 12, 32, 24)  # x, y, w, h of the box of "c"


@pytest.fixture
def coco(tmp_path):
    return write_folder(tmp_path / "coco", "COCO")


def with_box(root, split, names, **change):
    """Give the file of a split one more box."""
    content = coco_of(names)
    old = content["annotations"][0]
    content["annotations"].append({**old, "id": 99, "bbox": list(GOOD), "area": 384} | change)
    write_text(root / f"annotations/instances_{split}.json", content)


def average_precision(file, boxes):
    """AP of detections: {image id: x1, y1, x2, y2} of one class each."""
    metric = CocoMetric(ann_file=str(file))
    metric.dataset_meta = {"classes": tuple(CLASSES)}
    for key, (label, bbox) in boxes.items():
        found = {
            "bboxes": torch.tensor([bbox], dtype=torch.float),
            "scores": torch.tensor([0.9]),
            "labels": torch.tensor([label]),
        }
        sample = {"img_id": key, "ori_shape": (48, 64), "pred_instances": found}
        metric.process({}, [sample])
    with contextlib.redirect_stdout(io.StringIO()):
        return metric.evaluate(len(boxes))["coco/bbox_mAP"]


UNUSABLE = [
    {"bbox": [40, 30, 0, 5], "area": 0},
    {"bbox": [40, 30, 5, 0]},
    {"bbox": [70, 5, 9, 9]},
    {"bbox": [-9, 5, 9, 9]},
    {"bbox": [5, 48, 9, 9]},
    {"ignore": 1},
]


@pytest.mark.parametrize("change", UNUSABLE)
@pytest.mark.parametrize(("split", "names"), [("val", "d"), ("test", "c"), ("train", "b")])
def test_boxes_that_no_detector_finds_lower_no_ap(coco, tmp_path, split, names, change):
    """Of training too: without a val split, its images are held out for validation."""
    with_box(coco, split, names, **change)
    data = convert(str(coco), str(tmp_path / "run"))
    assert data.ann_files[split].startswith(str(tmp_path / "run"))
    label, (x, y, w, h) = {"d": (1, (4, 3, 56, 42)), "c": (0, GOOD), "b": (1, (8, 6, 16, 24))}[
        names
    ]
    found = {0: (label, (x, y, x + w, y + h))}
    assert average_precision(data.ann_files[split], found) == pytest.approx(1)
    own = coco / f"annotations/instances_{split}.json"
    assert average_precision(own, found) < 0.6


def test_what_is_marked_ignore_becomes_a_crowd(coco):
    with_box(coco, "val", "d", ignore=1)
    data = read_folder(str(coco))
    boxes = data.splits["val"].content["annotations"]
    assert [(box["iscrowd"], box.get("ignore", 0)) for box in boxes] == [(0, 0), (1, 0)]
    assert data.counts.number == {"boxes marked ignore (kept as crowds)": 1}
    with_box(coco, "val", "d", ignore=0)
    assert read_folder(str(coco)).splits["val"].file


@pytest.mark.parametrize(
    ("bbox", "inside"),
    [
        ([38.4, 14.4, 51.2, 19.2], [38.4, 14.4, 25.6, 19.2]),
        ([-10, 5, 20, 10], [0, 5, 10, 10]),
        ([5, -0.6, 20, 10], [5, 0, 20, 9.4]),
        ([5, 40, 20, 20], [5, 40, 20, 8]),
    ],
)
def test_boxes_over_the_border_are_clipped(coco, bbox, inside):
    with_box(coco, "val", "d", bbox=bbox, area=bbox[2] * bbox[3])
    split = read_folder(str(coco)).splits["val"]
    box = split.content["annotations"][1]
    assert split.file is None and box["bbox"] == pytest.approx(inside)
    assert box["area"] == pytest.approx(inside[2] * inside[3])


@pytest.mark.parametrize(
    "bbox", [[0, 0, 64, 48], [-0.4, 0, 10, 10], [54.4, 5, 10, 10], [5, 38.4, 10, 10]]
)
def test_what_rounding_does_is_no_reason_for_another_file(coco, bbox):
    with_box(coco, "val", "d", bbox=bbox)
    assert read_folder(str(coco)).splits["val"].file


def test_an_area_of_a_mask_is_kept_where_the_box_has_as_much(coco):
    with_box(coco, "val", "d", bbox=[60, 5, 10, 10], area=7)
    assert read_folder(str(coco)).splits["val"].content["annotations"][1]["area"] == 7


def test_boxes_of_other_formats_are_clipped(tmp_path):
    """A centre on the right border: the half that is in the image can be found."""
    for split in ("train", "val"):
        write_image(tmp_path / f"set/images/{split}/{split}.jpg")
        write_text(tmp_path / f"set/labels/{split}/{split}.txt", "0 1.0 .5 .8 .4\n")
    write_text(tmp_path / "set/classes.txt", "\n".join(CLASSES))
    data = convert(str(tmp_path / "set"), str(tmp_path / "run"))
    assert average_precision(data.ann_files["val"], {1: (0, (38.4, 14.4, 64, 33.6))}) == (
        pytest.approx(1)
    )
    assert any("2 boxes that reach over the border of the image (clipped" in s for s in data.lines)


def test_a_rotated_box_that_turns_out_of_the_image(coco, tmp_path):
    """Its upright form reaches the image; the box around the rotated one does not."""
    turned = {"segmentation": [], "attributes": {"rotation": 90}}
    with_box(coco, "val", "d", bbox=[50, 47, 4, 30], area=120, **turned)
    data = read_folder(str(coco))
    assert len(data.splits["val"].content["annotations"]) == 1
    assert data.counts.number["boxes outside the image"] == 1
    export_coco(str(coco), str(tmp_path / "out"))
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert len(content["annotations"]) == 1
