"""Rotated boxes of each format are read as the upright box around their corners, and counted."""

import json
import math

import cv2
import pytest
from helpers.data_folders import IMAGES, boxes_in, coco_of, write_folder, write_text, xml_of

from misalign_det.datasets.formats import read_folder
from misalign_det.datasets.formats.boxes import ROTATED
from misalign_det.datasets.formats.export import export_coco
from misalign_det.errors import InputError

BOX = (10, 20, 34, 30)  # x1, y1, x2, y2 before the rotation
ANGLES = (30, 90, 135, -20)


def corners(degrees):
    x1, y1, x2, y2 = BOX
    return cv2.boxPoints((((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), degrees)).tolist()


def around(degrees):
    xs, ys = zip(*corners(degrees))
    return pytest.approx((min(xs), min(ys), max(xs), max(ys)), abs=1e-4)


def only_box(root, image="b"):
    """The one box of an image, and what was counted."""
    data = read_folder(str(root))
    ((label, bbox),) = boxes_in(data.splits["train"].content)[image]
    assert label == "bolt"
    return bbox, data.counts.number


def cvat(tmp_path, rotation):
    root = write_folder(tmp_path / "cvat", "CVAT")
    path = root / "annotations.xml"
    x1, y1, x2, y2 = BOX
    old = '<box label="bolt" xtl="8" ytl="6" xbr="24" ybr="30" />'
    assert old in path.read_text()
    new = f'<box label="bolt" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" rotation="{rotation}"/>'
    path.write_text(path.read_text().replace(old, new))
    return root


@pytest.mark.parametrize("degrees", ANGLES)
def test_cvat(degrees, tmp_path):
    assert only_box(cvat(tmp_path, degrees)) == (around(degrees), {ROTATED: 1})


@pytest.mark.parametrize("degrees", ["0.0", "360", ""])
def test_what_is_not_turned_is_not_counted(degrees, tmp_path):
    assert only_box(cvat(tmp_path, degrees)) == (BOX, {})


@pytest.mark.parametrize("degrees", ["x", "nan", "inf"])
def test_an_angle_that_is_no_number(degrees, tmp_path):
    root = cvat(tmp_path, degrees)
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["b"] == []
    assert data.counts.number == {"unreadable boxes": 1}


@pytest.mark.parametrize("kind", ["rotation", "oriented_rectangle"])
@pytest.mark.parametrize("degrees", ANGLES)
def test_labelme(kind, degrees, tmp_path):
    root = write_folder(tmp_path / "labelme", "LabelMe")
    path = root / "train/b.json"
    content = json.loads(path.read_text())
    content["shapes"] = [{"label": "bolt", "shape_type": kind, "points": corners(degrees)}]
    write_text(path, content)
    assert only_box(root) == (around(degrees), {ROTATED: 1})


@pytest.mark.parametrize("origin", [0, 1])
@pytest.mark.parametrize("degrees", ANGLES)
def test_voc_of_rolabelimg(degrees, origin, tmp_path):
    """Its angle is in radians; its coordinates count from 0, whatever those of upright boxes."""
    root = write_folder(tmp_path / "voc", "VOC")
    for name, (_, boxes) in IMAGES.items():
        write_text(root / f"Annotations/{name}.xml", xml_of(name, boxes, origin))
    x1, y1, x2, y2 = BOX
    item = (
        "<object><type>robndbox</type><name>bolt</name><robndbox>"
        f"<cx>{(x1 + x2) / 2}</cx><cy>{(y1 + y2) / 2}</cy><w>{x2 - x1}</w><h>{y2 - y1}</h>"
        f"<angle>{math.radians(degrees)}</angle></robndbox></object>"
    )
    text = xml_of("b", []).replace("</annotation>", f"{item}</annotation>")
    write_text(root / "Annotations/b.xml", text)
    assert only_box(root) == (around(degrees), {ROTATED: 1})
    boxes = boxes_in(read_folder(str(root)).splits["train"].content)
    assert boxes["a"] == IMAGES["a"][1]


def test_voc_without_an_angle_or_name(tmp_path):
    root = write_folder(tmp_path / "voc", "VOC")
    place = "<robndbox><cx>9</cx><cy>9</cy><w>4</w><h>4</h></robndbox>"
    items = f"<object><name>nut</name>{place}</object><object>{place}</object>"
    text = xml_of("a", IMAGES["a"][1]).replace("</annotation>", f"{items}</annotation>")
    write_text(root / "Annotations/a.xml", text)
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["a"] == IMAGES["a"][1]
    assert data.counts.number == {"unreadable boxes": 2}


def coco(tmp_path, **kwargs):
    """As CVAT exports a rotated box to COCO: upright, with the angle in the attributes."""
    root = write_folder(tmp_path / "coco", "COCO")
    x1, y1, x2, y2 = BOX
    content = coco_of("abc")
    content["annotations"][2] |= {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "segmentation": [],
        **kwargs,
    }
    write_text(root / "annotations/instances_train.json", content)
    return root


@pytest.mark.parametrize("degrees", ANGLES)
def test_coco_of_cvat(degrees, tmp_path):
    root = coco(tmp_path, attributes={"occluded": False, "rotation": degrees})
    assert only_box(root) == (around(degrees), {ROTATED: 1})
    (box,) = [b for b in read_folder(str(root)).splits["train"].content["annotations"]
              if b["image_id"] == 1]  # fmt: skip
    assert box["area"] == pytest.approx(box["bbox"][2] * box["bbox"][3])
    export_coco(str(root), str(tmp_path / "out"))  # and is not rotated once more
    assert only_box(tmp_path / "out") == (around(degrees), {})


def test_coco_boxes_that_are_upright(tmp_path):
    root = coco(tmp_path, attributes={"occluded": False, "rotation": 0.0})
    assert read_folder(str(root)).splits["train"].file
    mask = [[10, 20, 34, 20, 34, 30]]  # its box is already around it
    root = coco(tmp_path / "2", attributes={"rotation": 30}, segmentation=mask)
    assert only_box(root) == (BOX, {}) and read_folder(str(root)).splits["train"].file


@pytest.mark.parametrize("name", ["rotation", "Angle", "rotation_angle"])
def test_a_table_with_angles_is_refused(name, tmp_path):
    root = write_folder(tmp_path / "set", "CSV")
    path = root / "boxes.csv"
    lines = path.read_text().splitlines()
    angles = [name, "0", "", "0.0", *["0"] * (len(lines) - 4)]
    path.write_text("\n".join(f"{line},{angle}" for line, angle in zip(lines, angles)))
    assert boxes_in(read_folder(str(root)).splits["train"].content)["a"] == IMAGES["a"][1]
    angles[4] = "15"
    path.write_text("\n".join(f"{line},{angle}" for line, angle in zip(lines, angles)))
    with pytest.raises(InputError, match=f"boxes.csv, row 5: {name} is 15. .*upright"):
        read_folder(str(root))
