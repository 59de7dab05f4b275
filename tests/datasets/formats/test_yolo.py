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


def test_train_and_val_may_be_the_same_folder(yolo):
    """As in coco128.yaml; preflight warns of it."""
    write_text(yolo / "data.yaml", "train: images\nval: images\nnames: [nut, bolt]\n")
    data = read_folder(str(yolo))
    assert numbers(data) == {"train": 6, "val": 6} and str(data.counts) == ""
    assert boxes_in(data.splits["val"].content) == boxes_in(data.splits["train"].content)


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


# --- YAML files as exporters write them, and lists of Darknet -------------------------------------

SPLITS = "train: images/train\nval: images/val\n"


def numbers(data):
    return {name: len(split) for name, split in data.splits.items()}


@pytest.mark.parametrize("points", ["0.9 0.9 " * 12, "0.9 0.9 2 " * 3, "0.9 0.9 1 0 0 0"])
def test_the_points_of_a_pose_are_not_of_the_box(yolo, points):
    text = f"{SPLITS}names: [nut, bolt]\n"
    write_text(yolo / "labels/train/c.txt", f"0 0.5 0.5 0.5 0.5 {points}\n")
    write_text(yolo / "data.yaml", f"{text}kpt_shape: [12, 2]\n")
    data = read_folder(str(yolo))
    assert boxes_in(data.splits["train"].content)["c"] == IMAGES["c"][1]
    assert "unreadable" not in str(data.counts) and "polygons" not in str(data.counts)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("[no, yes]", ["no", "yes"]),
        ("[007, 1e3]", ["007", "1e3"]),
        ("{0: off, 1: 2001-01-01}", ["off", "2001-01-01"]),
        ("{no: 0, 1.0: 1}", ["no", "1.0"]),
        ("[0x1F, 1_000]", ["0x1F", "1_000"]),
    ],
)
def test_names_stay_as_they_are_written(yolo, names, classes):
    write_text(yolo / "data.yaml", f"nc: 2\n{SPLITS}names: {names}\n")
    assert read_folder(str(yolo)).classes == classes
    write_text(yolo / "data.yaml", f"nc: 3\n{SPLITS}names: {names}\n")  # nc stays a number
    with pytest.raises(InputError, match="nc is 3, but there are 2 names"):
        read_folder(str(yolo))


@pytest.mark.parametrize(
    ("text", "splits"),
    [
        ("train: images/train\nval: images/val\ntest: gone", {"train": 3, "val": 2}),
        ("train: images/train\nval: images/val\ntest: gone.txt", {"train": 3, "val": 2}),
        ("train: images/train\nvalid: gone", {"train": 3}),
        ("train: images/train\nval: [gone, images/val]", {"train": 3, "val": 2}),
    ],
)
def test_a_split_that_is_not_there_is_a_warning(yolo, text, splits):
    write_text(yolo / "data.yaml", f"{text}\nnames: [nut, bolt]\n")
    data = read_folder(str(yolo))
    assert numbers(data) == splits
    warning, *others = data.warnings[::-1]
    assert "1 folders and lists of a YAML file that are not there (first: data.yaml: " in warning
    assert "is gone" in warning and "They are no split" in warning
    number = 6 - sum(splits.values())
    (other,) = others
    assert f"{number} of 6 images are in no split and are left out, such as images/" in other


@pytest.mark.parametrize("text", ["val: gone", "train: [images/train, gone]\nval: images/val"])
def test_val_without_train_and_a_part_of_train_must_be_there(yolo, text):
    write_text(yolo / "data.yaml", f"{text}\nnames: [nut, bolt]\n")
    with pytest.raises(InputError, match="is gone, which is not below"):
        read_folder(str(yolo))


@pytest.mark.parametrize("place", [".", "./", ".."])
def test_a_split_may_be_the_folder_itself(yolo, place):
    text = f"train: {place}\nval: images/val\nnames: [nut, bolt]\n"
    write_text(yolo / "data.yaml", text)
    assert numbers(read_folder(str(yolo))) == {"train": 4, "val": 2}


@pytest.mark.parametrize(
    "text", ["theme: !!python/name:material.x", "a: [", "day: 2024-13-45", "a: b: c"]
)
@pytest.mark.parametrize("names", ["classes.txt", "z.yaml"])
def test_a_broken_file_of_something_else_is_left_alone(yolo, text, names):
    (yolo / "classes.txt").unlink()
    write_text(yolo / "mkdocs.yml", text)
    with pytest.raises(InputError, match="mkdocs.yml is not valid YAML"):
        read_folder(str(yolo))
    write_text(yolo / names, "names: [nut, bolt]" if names == "z.yaml" else "nut\nbolt\n")
    assert read_folder(str(yolo)).classes == ["nut", "bolt"]
    write_text(yolo / "data.yaml", f"{text}\n'names' : [nut, bolt]\n")
    with pytest.raises(InputError, match="data.yaml is not valid YAML"):
        read_folder(str(yolo))


@pytest.mark.parametrize("name", ["z.yaml", "z.json", "z.names", "train.txt"])
def test_a_link_to_nothing_is_not_there(yolo, name):
    (yolo / name).symlink_to("/gone/file")
    assert numbers(read_folder(str(yolo))) == {"train": 3, "val": 2, "test": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.json", {"categories": [{"id": 0, "name": "nut"}], "info": {"version": "1.0"}}),
        ("meta.json", {"images": 5, "annotations": "x"}),
        ("meta.json", {"images": ["a.jpg"], "categories": []}),
        ("tasks.json", [{"annotations": [{"id": 1}]}]),
    ],
)
def test_json_files_of_other_programs(yolo, name, content):
    """Label Studio writes notes.json beside the labels."""
    write_text(yolo / name, content)
    assert read_folder(str(yolo)).format == "YOLO"


def _darknet(root, lists):
    for name in "abcde":
        write_image(root / f"obj_data/im {name}.jpg")
        write_text(root / f"obj_data/im {name}.txt", "0 0.5 0.5 1 1\n")
    write_text(root / "obj.names", "nut\n")
    for name, images in lists.items():
        write_text(root / name, "\n".join(images))
    return read_folder(str(root))


@pytest.mark.parametrize("val", ["valid", "val", "test"])
def test_lists_of_darknet_and_cvat_are_splits(tmp_path, val):
    train = [f"data/obj_data/im {name}.jpg" for name in "abc"]
    data = _darknet(tmp_path, {"train.txt": train, f"{val}.txt": ["", "data/obj_data/im d.jpg"]})
    assert numbers(data) == {"train": 3, val.replace("valid", "val"): 1}
    assert data.counts.number == {"images in no split": 1} and "im e.jpg" in data.warnings[0]


def test_images_of_darknets_lists_that_are_missing(tmp_path):
    lists = {"train.txt": ["obj_data/im a.jpg", "obj_data/gone.JPG"], "notes.txt": ["gone.jpg"]}
    data = _darknet(tmp_path, lists)
    assert numbers(data) == {"train": 1}
    assert data.counts.first["missing images"] == "train.txt: obj_data/gone.JPG"
    assert data.counts.number["missing images"] == 1


def test_a_text_named_after_a_split_that_lists_no_images(tmp_path):
    assert numbers(_darknet(tmp_path, {"train.txt": ["im a", "0 0.5 0.5 1 1"]})) == {"": 5}
    assert numbers(_darknet(tmp_path, {"train.txt": ["gone.jpg"]})) == {"": 5}
