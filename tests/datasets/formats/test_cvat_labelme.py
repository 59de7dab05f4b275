"""CVAT and LabelMe: shapes that are not boxes, videos, files that do not fit."""

import json

import pytest
from helpers.data_folders import IMAGES, boxes_in, write_folder

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


def test_other_shapes_and_unknown_labels_of_cvat_are_counted(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    text = path.read_text().replace('<box label="nut"', '<box label="screw"', 1)
    text = text.replace("</image>", '<polygon label="nut" points="1,1;5,5;1,5" /></image>', 1)
    path.write_text(text.replace("b.jpg", "gone.jpg"))
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["a"] == IMAGES["a"][1][1:]
    assert data.counts.number == {
        "boxes of unknown classes": 1,
        "shapes that are not boxes": 1,
        "missing images": 1,
    }


def test_a_video_of_cvat_says_what_to_export(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    path.write_text(path.read_text().replace("</annotations>", "<track /></annotations>"))
    with pytest.raises(InputError, match="Export the frames as 'CVAT for images'"):
        read_folder(str(root))


def test_polygons_of_labelme_become_boxes_and_circles_are_counted(tmp_path):
    root = write_folder(tmp_path / "set", "LabelMe")
    path = root / "train/b.json"
    content = json.loads(path.read_text())
    content["shapes"] = [
        {"label": "nut", "shape_type": "polygon", "points": [[9, 3], [30, 20], [12, 40]]},
        {"label": "nut", "shape_type": "circle", "points": [[9, 9], [12, 9]]},
        {"label": "nut", "shape_type": "rectangle", "points": []},
    ]
    content["imagePath"] = "..\\frames\\b.jpg"  # as LabelMe on Windows writes it
    path.write_text(json.dumps(content))
    (root / "train/c.json").write_text("{")
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["b"] == [("nut", (9, 3, 30, 40))]
    assert data.counts.number == {
        "polygons read as the box around them": 1,
        "shapes that are not boxes": 1,
        "unreadable boxes": 1,
        "unreadable annotations": 1,
    }
