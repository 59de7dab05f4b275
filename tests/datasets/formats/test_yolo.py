"""YOLO files: names of classes, splits in a YAML file, images without labels, polygons."""

import pytest
from helpers.data_folders import IMAGES, boxes_in, write_folder, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


@pytest.fixture
def yolo(tmp_path):
    return write_folder(tmp_path / "yolo", "YOLO")


def test_an_image_turned_by_its_exif_orientation(tmp_path):
    """The decoder turns it, so that labels are parts of the turned image."""
    write_image(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")  # fmt: skip  # noqa: E501
    write_text(tmp_path / "a.txt", "0 0.5 0.5 1 1\n")
    write_text(tmp_path / "classes.txt", "nut\n")
    content = read_folder(str(tmp_path)).splits[""].content
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (48, 64)
    assert content["annotations"][0]["bbox"] == [0, 0, 48, 64]


def test_names_in_a_dict_and_splits_in_lists(yolo):
    (yolo / "classes.txt").unlink()
    write_text(yolo / "mine.yaml", "path: /elsewhere\ntrain: train.txt\nval: [images/val, "
               "images/test]\nnames: {0: nut, 2: screw, 1: bolt}\n")  # fmt: skip
    write_text(yolo / "train.txt", "./images/train/a.jpg\n/elsewhere/images/train/b.jpg\n")
    data = read_folder(str(yolo))
    assert data.classes == ["nut", "bolt", "screw"]
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "val": 3}
    assert data.counts.number == {"images in no split": 1}
    assert boxes_in(data.splits["train"].content) == {n: IMAGES[n][1] for n in ("a", "b")}


def test_train_and_val_of_the_same_folder_are_one_split(yolo):
    write_text(yolo / "data.yaml", "train: images\nval: images\nnames: [nut, bolt]\n")
    assert {n: len(split) for n, split in read_folder(str(yolo)).splits.items()} == {"train": 6}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("data.yaml", "names: [", "data.yaml is not valid YAML"),
        ("data.yaml", "names: [nut]\ntrain: gone/images\n", "train is gone/images, which is not"),
        ("classes.txt", "\n", "no names of classes. Add classes.txt"),
        (
            "classes.txt",
            "nut\n\nbolt\n",
            "classes.txt: class 1 has an empty name: 'nut', '', 'bolt'",
        ),
        ("data.yaml", "names: [nut, ' ', bolt]", "data.yaml: class 1 has an empty name"),
        ("data.yaml", "names: [nut, null]", "data.yaml: class 1 has an empty name"),
        ("data.yaml", "names: {0: nut, 1: ''}", "data.yaml: class 1 has an empty name"),
        ("data.yaml", "nc: 3\nnames: [nut, bolt]", "nc is 3, but there are 2 names: nut, bolt"),
        ("data.yaml", "names: {nut: first}", "names is .*neither a list nor a dict of numbers"),
        (
            "data.yaml",
            "names: {0: nut, x: bolt}",
            "names is .*neither a list nor a dict of numbers",
        ),
        ("data.yaml", "names: {-1: nut, 0: bolt}", "names is .*neither a list nor a dict of num"),
        ("data.yaml", "names: {0: nut, 1000000000: bolt}", "names is .*neither a list nor a dict"),
    ],
)
def test_names_and_paths_that_are_not_there(yolo, name, text, message):
    write_text(yolo / name, text)
    with pytest.raises(InputError, match=message):
        read_folder(str(yolo))


def test_polygons_confidences_and_lines_that_do_not_fit(yolo):
    lines = [
        "1 0.25 0.25 0.75 0.25 0.5 0.75",  # polygon
        "0 0.5 0.5 0.5 0.5 0.9",  # with a confidence
        "2 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 x",
        "0 0.5 0.5 0 0.5",
        "",
    ]
    write_text(yolo / "labels/train/b.txt", "\n".join(lines))
    (yolo / "images/train/c.jpg").unlink()
    data = read_folder(str(yolo))
    boxes = boxes_in(data.splits["train"].content)["b"]
    assert boxes == [("bolt", (16, 12, 48, 36)), ("nut", (16, 12, 48, 36))]
    assert data.counts.number == {
        "polygons read as the box around them": 1,
        "boxes of unknown classes": 1,
        "unreadable boxes": 2,
        "boxes without area": 1,
        "missing images": 1,
    }


def test_the_same_name_in_two_splits(yolo):
    write_image(yolo / "images/val/a.jpg")
    write_text(yolo / "labels/val/a.txt", "1 0.5 0.5 1 1\n")
    splits = read_folder(str(yolo)).splits
    assert boxes_in(splits["train"].content)["a"] == IMAGES["a"][1]
    assert boxes_in(splits["val"].content)["a"] == [("bolt", (0, 0, 64, 48))]


@pytest.mark.parametrize(
    "names",
    [
        "{nut: 0, bolt: 1}",
        "{'0': nut, '1': bolt}",
        "{0: nut, 1: bolt}",
        "nut, bolt",
        "lists/mine.names",
    ],
)
def test_forms_of_the_names(yolo, names):
    (yolo / "classes.txt").unlink()
    write_text(yolo / "lists/mine.names", "nut\r\nbolt\r\n\r\n")
    write_text(yolo / "data.yaml", f"nc: 2\nnames: {names}\n")
    data = read_folder(str(yolo))
    assert data.classes == ["nut", "bolt"] and str(data.counts) == ""
    assert boxes_in(data.splits["train"].content)["a"] == IMAGES["a"][1]


def test_one_name_is_one_class(yolo):
    for path in (yolo / "labels").rglob("*.txt"):
        path.write_text(path.read_text().replace("1 ", "0 ", 1))
    write_text(yolo / "labels/train/a.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(yolo / "data.yaml", "names: nut\n")
    assert read_folder(str(yolo)).classes == ["nut"]


def test_classes_of_the_same_name_are_merged(yolo):
    write_text(yolo / "classes.txt", "bolt\nbolt\nnut\n")
    data = read_folder(str(yolo))
    assert data.classes == ["bolt", "nut"]
    assert {name for name, _ in boxes_in(data.splits["train"].content)["a"]} == {"bolt"}
    (warning,) = data.warnings
    assert "classes.txt: 'bolt' is class 0 and 1). If they are different classes" in warning


@pytest.mark.parametrize("kind", ["LabelMe", "CSV", "VOC", "COCO"])
@pytest.mark.parametrize("name", ["classes.txt", "data.yaml"])
def test_names_alone_are_not_yolos(kind, name, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    write_text(root / name, "names: [nut, bolt]\n" if name == "data.yaml" else "nut\nbolt\n")
    data = read_folder(str(root))
    assert data.format == kind and boxes_in(data.splits["train"].content)["a"] == IMAGES["a"][1]


def test_names_without_any_labels(tmp_path):
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "classes.txt", "nut\n")
    with pytest.raises(InputError, match="no text file has the name of an image"):
        read_folder(str(tmp_path))


def test_labels_beside_annotations_of_labelme_are_read(tmp_path):
    """As an annotation tool leaves them that has exported its own files to YOLO."""
    root = write_folder(tmp_path / "set", "LabelMe")
    write_text(root / "train/a.txt", "0 0.5 0.5 1 1\n")
    write_text(root / "classes.txt", "nut\n")
    assert read_folder(str(root)).format == "YOLO"


def test_other_texts_in_the_folder_of_a_split_are_no_labels(yolo):
    write_text(yolo / "images/train/notes.txt", "1 2 3 4 5\n")
    assert str(read_folder(str(yolo)).counts) == ""


def test_images_of_a_list_that_are_missing(yolo):
    write_text(yolo / "data.yaml", "train: train.txt\nval: images/val\nnames: [nut, bolt]\n")
    write_text(yolo / "train.txt", "images/train/a.jpg\nimages/train/gone.jpg\n")
    assert (
        read_folder(str(yolo)).counts.first["missing images"] == "train.txt: images/train/gone.jpg"
    )
