"""Annotations of which most cannot be used are refused; where many cannot, a warning says why."""

import importlib.util
import json

import pytest
from helpers.data_folders import (
    CLASSES,
    IMAGES,
    boxes_in,
    coco_of,
    write_folder,
    write_image,
    write_text,
    xml_of,
)
from helpers.paths import TOOLS

from misalign_det.apis.own_data.conversion import convert
from misalign_det.datasets.formats import read_folder
from misalign_det.datasets.formats.losses import check_losses
from misalign_det.datasets.formats.records import Counts
from misalign_det.errors import InputError

BOXES = [f"0 0.5 0.5 0.5 {i / 20}" for i in range(4, 16)]


def yolo(root, labels=(), val=(), names=CLASSES):
    """A folder with a training image of twelve boxes, and one for validation with one."""
    for split, lines in (("train", [*BOXES, *labels]), ("val", val or BOXES[:1])):
        write_image(root / f"images/{split}/{split}.jpg")
        write_text(root / f"labels/{split}/{split}.txt", "\n".join(lines))
    write_text(root / "classes.txt", "\n".join(names))
    return root


def many(line, number):
    """Lines that differ in their last digit, since a box that is listed twice counts once."""
    return [line + "." * ("." not in line) + str(i) for i in range(10, 10 + number)]


def fault(root, tmp_path):
    """What --data says of a folder, of which it writes nothing."""
    with pytest.raises(InputError) as caught:
        convert(str(root), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "kind", "cause"),
    [
        ("0 320 240 100 80", "coordinates above 1", "labels/train/train.txt: 320.* divide pixels"),
        ("0 32 24 64 48", "coordinates above 1", "divide pixels"),  # the whole image, in pixels
        ("1 9 9 12 9 12 12", "coordinates above 1", "divide pixels"),  # a polygon
        ("2 0.5 0.5 0.5 0.5", "unknown classes", "class 2, names 0 to 1.* begin at 1 instead of 0"),
        ("0 0.5 0.5 x 0.5", "unreadable boxes", "four numbers"),
        ("0 0.5 0.5 0 0.5", "boxes without area", "corners exchanged"),
        ("0 1.4 0.5 0.1 0.5", "boxes outside the image", "images that were annotated"),
    ],
)
def test_the_cause_is_named(line, kind, cause, tmp_path):
    said = fault(yolo(tmp_path / "all", many(line, 13)), tmp_path)
    assert "all: train: 13 of 25 boxes cannot be used: 13 " in said and kind in said
    data = read_folder(str(yolo(tmp_path / "half", many(line, 12))))
    (warning,) = data.warnings
    assert "half: train: 12 of 24 boxes are left out" in warning and kind in warning
    with pytest.raises(InputError, match=cause):
        read_folder(str(tmp_path / "all"))


def test_up_to_a_tenth_is_counted_only(tmp_path):
    bad = "0 0.5 0.5 0 0.5"
    assert read_folder(str(yolo(tmp_path / "1", [bad]))).warnings == []
    assert read_folder(str(yolo(tmp_path / "2", many(bad, 2)))).warnings != []


def test_no_usable_box_at_all_names_the_cause(tmp_path):
    root = yolo(tmp_path / "set", val=["0 9 9 9 9"])
    write_text(root / "labels/train/train.txt", "0 9 9 9 9")
    assert "no YOLO annotation has a usable box" in (said := fault(root, tmp_path))
    assert "divide pixels by them" in said


def test_a_small_split_that_is_lost(tmp_path):
    said = fault(yolo(tmp_path / "set", val=["7 0.5 0.5 0.5 0.5"]), tmp_path)
    assert "set: val: 1 of 1 boxes cannot be used" in said and "train" not in said.split(": ")[1]


@pytest.mark.parametrize("kind", ["COCO", "VOC", "YOLO", "CVAT", "LabelMe", "CSV"])
def test_a_split_without_its_images(kind, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    for name, (split, _) in IMAGES.items():
        if split == "test":
            (path,) = root.rglob(f"{name}.jpg")
            path.unlink()
    said = fault(root, tmp_path)
    if kind == "COCO":
        assert "instances_test.json: its images, such as f.jpg, are not below" in said
    else:
        assert "set: test: 1 of 1 images cannot be used: 1 missing images" in said


@pytest.mark.parametrize("kind", ["COCO", "VOC", "YOLO", "CVAT", "LabelMe", "CSV"])
def test_a_missing_image_of_val_is_a_warning(kind, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    (path,) = root.rglob("d.jpg")
    path.unlink()
    data = read_folder(str(root))
    assert list(boxes_in(data.splits["val"].content)) == ["e"]
    (warning,) = data.warnings
    assert "set: val: 1 of 2 images are left out: 1 missing images" in warning
    assert "Results are those of the rest." in warning


def with_boxes(root, kind, number, bad):
    """Give the image "c" many boxes of a format, of which some are `bad`."""
    boxes = [("nut", (16, 12, 36 + i, 35)) for i in range(number - bad)]
    boxes += [("nut", (9, 9, 9, 20 + i)) for i in range(bad)]
    if kind == "COCO":
        content = coco_of("ab")
        content["images"].append({"id": 9, "file_name": "c.jpg", "width": 64, "height": 48})
        for i, (_, (x1, y1, x2, y2)) in enumerate(boxes, 100):
            content["annotations"].append(
                {"id": i, "image_id": 9, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
                 "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            )  # fmt: skip
        write_text(root / "annotations/instances_train.json", content)
    elif kind == "VOC":
        write_text(root / "Annotations/c.xml", xml_of("c", boxes))
    elif kind == "LabelMe":
        path = root / "train/c.json"
        shapes = [
            {"label": label, "points": [bbox[:2], bbox[2:]], "shape_type": "rectangle"}
            for label, bbox in boxes
        ]
        write_text(path, {**json.loads(path.read_text()), "shapes": shapes})
    elif kind == "CVAT":
        path = root / "annotations.xml"
        old = '<box label="nut" xtl="16" ytl="12" xbr="48" ybr="36" />'
        assert path.read_text().count(old) == 1
        new = "".join(
            f'<box label="{label}" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"/>'
            for label, b in boxes
        )
        path.write_text(path.read_text().replace(old, new))
    else:
        with open(root / "boxes.csv", "a") as opened:
            for label, bbox in boxes[1:]:
                opened.write(f"c.jpg,{label},{','.join(map(str, bbox))},train,v\n")


@pytest.mark.parametrize("kind", ["COCO", "VOC", "CVAT", "LabelMe", "CSV"])
def test_each_format_is_checked(kind, tmp_path):
    for bad, share in ((20, "20 of 33"), (4, "4 of 33")):
        root = write_folder(tmp_path / str(bad), kind)
        with_boxes(root, kind, 30, bad)
        if bad == 20:
            assert f"train: {share} boxes cannot be used: 20 boxes without" in fault(root, tmp_path)
        else:
            (warning,) = read_folder(str(root)).warnings
            assert f"train: {share} boxes are left out: 4 boxes without area" in warning


def test_shapes_are_no_boxes_but_many_of_them_are_told(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    shapes = '<polyline label="nut" points="1,1;5,5;1,5"/>' * 9
    path.write_text(path.read_text().replace("</image>", f"{shapes}</image>", 1))
    (warning,) = read_folder(str(root)).warnings
    assert "train: 9 of 13 shapes are left out: 9 shapes that are not boxes" in warning


def test_images_in_no_split_beside_others_with_one(tmp_path):
    root = write_folder(tmp_path / "set", "CVAT")
    path = root / "annotations.xml"
    path.write_text(path.read_text().replace('subset="Val"', 'subset=""'))
    (warning,) = read_folder(str(root)).warnings
    assert "2 of 6 images are in no split and are left out" in warning


def test_losses_of_no_known_split(tmp_path):
    counts = Counts()
    counts.add("unreadable boxes", "a.csv", 5)
    assert "x: 5 of 15 boxes are left out" in check_losses("x", {"train": (1, 10)}, counts)[0]
    counts.add("unreadable boxes", "a.csv", 6)
    with pytest.raises(InputError, match="x: 11 of 21 boxes cannot be used"):
        check_losses("x", {"train": (1, 10)}, counts)


def test_the_tool_warns_and_refuses_too(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location(
        "to_coco", TOOLS / "dataset_converters/to_coco.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    bad = "0 320 240 100 80"
    out = tmp_path / "out"
    tool.main([str(yolo(tmp_path / "some", many(bad, 3))), "--out-dir", str(out)])
    assert "WARNING: " in (said := capsys.readouterr().out)
    assert "3 of 15 boxes are left out: 3 boxes with coordinates above 1" in said
    with pytest.raises(SystemExit, match="13 of 25 boxes cannot be used"):
        tool.main([str(yolo(tmp_path / "most", many(bad, 13))), "--out-dir", str(tmp_path / "2")])
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_any_lost_image_of_val_and_test_is_a_warning(split):
    counts = Counts()
    counts.add("missing images", "a.jpg", split=split)
    warnings = check_losses("x", {split: (99, 500)}, counts)
    assert len(warnings) == (split != "train")
    if warnings:
        assert f"x: {split}: 1 of 100 images are left out: 1 missing images" in warnings[0]
