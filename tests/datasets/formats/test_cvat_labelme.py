"""CVAT and LabelMe: shapes that are not boxes, videos, files that do not fit."""

import json

import pytest
from helpers.data_folders import IMAGES, boxes_in, write_folder, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


def test_other_shapes_and_unknown_labels_of_cvat_are_counted(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    text = path.read_text().replace('<box label="nut"', '<box label="screw"', 1)
    text = text.replace("</image>", '<polyline label="nut" points="1,1;5,5;1,5" /></image>', 1)
    path.write_text(text.replace("b.jpg", "gone.jpg"))
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["a"] == IMAGES["a"][1][1:]
    assert data.counts.number == {
        "boxes of unknown classes": 1,
        "shapes that are not boxes": 1,
        "missing images": 1,
    }


def test_polygons_of_cvat_are_read_as_the_box_around_them(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    shapes = ['label="nut" points="20.5,1;3,40;7,5"', 'points="1,1;5,5;1,5"', 'label="nut"',
              'label="nut" points="1,1;5,x"', 'label="nut" points="1;5,5"',
              'label="screw" points="1,1;5,5;1,5"']  # fmt: skip
    nodes = "".join(f"<polygon {shape}/>" for shape in shapes)
    path.write_text(path.read_text().replace("</image>", f"{nodes}</image>", 1))
    data = read_folder(str(root))
    boxes = boxes_in(data.splits["train"].content)["a"]
    assert boxes == [*IMAGES["a"][1], ("nut", (3, 1, 20.5, 40))]
    assert data.counts.number == {
        "polygons read as the box around them": 1,
        "unreadable boxes": 4,
        "boxes of unknown classes": 1,
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


def test_images_of_the_same_name_in_both_subsets_of_cvat(tmp_path):
    nodes = []
    for number, subset in enumerate(("Train", "Validation")):
        write_image(tmp_path / "images" / subset / "b.jpg")
        nodes.append(
            f'<image name="b.jpg" subset="{subset}"><box label="a" xtl="{number}" ytl="2" xbr="9" '
            'ybr="9"/></image>'
        )
    write_text(tmp_path / "annotations.xml", f"<annotations>{''.join(nodes)}</annotations>")
    found = read_folder(str(tmp_path)).splits
    assert {name: boxes_in(split.content)["b"] for name, split in found.items()} == {
        "train": [("a", (0, 2, 9, 9))], "val": [("a", (1, 2, 9, 9))]}  # fmt: skip
    for split, folder in (("train", "Train"), ("val", "Validation")):
        (image,) = found[split].content["images"]
        path = found[split].images / image["file_name"]
        assert str(path) == str(tmp_path / "images" / folder / "b.jpg")


def test_a_file_of_cvat_that_was_cut_off(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    text = (root / "annotations.xml").read_text()
    (root / "val.xml").write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="val.xml is not valid XML .*export it again"):
        read_folder(str(root))


def test_a_label_of_cvat_without_a_name(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    path.write_text(path.read_text().replace("<name>bolt</name>", "<name> </name>"))
    with pytest.raises(InputError, match="annotations.xml: label 2 of 'nut', '' has an empty name"):
        read_folder(str(root))


def test_spaces_around_labels_of_cvat(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    path.write_text(path.read_text().replace("<name>bolt</name>", "<name> bolt </name>"))
    data = read_folder(str(root))
    assert data.classes == ["nut", "bolt"] and str(data.counts) == ""


def test_an_image_in_two_files_of_cvat_is_one(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    text = (root / "annotations.xml").read_text()
    text = text.replace('label="bolt" xtl="8"', 'label="bolt" xtl="9"')  # one box is another one
    (root / "second.xml").write_text(text)
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content) == {
        "a": IMAGES["a"][1],
        "b": [("bolt", (8, 6, 24, 30)), ("bolt", (9, 6, 24, 30))],
        "c": IMAGES["c"][1],
    }
    assert data.counts.number == {"images listed twice": 6, "boxes listed twice": 6}
    (warning,) = data.warnings
    assert (
        "different boxes of 1 images, such as annotations.xml and second.xml of images/b" in warning
    )
    (root / "second.xml").write_text((root / "annotations.xml").read_text())
    data = read_folder(str(root))
    assert data.counts.number["images listed twice"] == 6 and data.warnings == []


def test_files_of_labelme_with_another_name_than_their_image(tmp_path):
    root = write_folder(tmp_path / "set", "LabelMe")
    (root / "train/b.json").rename(root / "train/first.json")
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["b"] == IMAGES["b"][1]


def test_a_folder_for_training_and_validation(tmp_path):
    root = write_folder(tmp_path / "set", "LabelMe")
    (root / "train").rename(root / "trainval")
    assert list(read_folder(str(root)).splits) == ["train", "val", "test"]
