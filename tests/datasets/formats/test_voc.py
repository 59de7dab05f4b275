"""Pascal VOC files: origin of the coordinates, lists, difficult objects, files that do not fit."""

import pytest
from helpers.data_folders import IMAGES, boxes_in, write_folder, write_image, write_text, xml_of
from mmdet.datasets import XMLDataset

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


@pytest.fixture
def voc(tmp_path):
    return write_folder(tmp_path / "voc", "VOC")


def test_boxes_are_those_of_mmdets_dataset(voc):
    dataset = XMLDataset(
        data_root=str(voc),
        ann_file="ImageSets/Main/train.txt",
        metainfo={"classes": ("nut", "bolt")},
        data_prefix={"sub_data_root": ""},
        filter_cfg=None,
    )
    theirs = {
        data["img_id"]: [
            (("nut", "bolt")[item["bbox_label"]], tuple(item["bbox"])) for item in data["instances"]
        ]
        for data in (dataset.get_data_info(i) for i in range(len(dataset)))
    }
    assert theirs == boxes_in(read_folder(str(voc)).splits["train"].content)


def test_one_box_at_0_means_that_pixels_count_from_0(voc):
    before = boxes_in(read_folder(str(voc)).splits["val"].content)
    write_text(voc / "Annotations/b.xml", xml_of("b", [("bolt", (-1, 6, 24, 30))]))
    after = boxes_in(read_folder(str(voc)).splits["val"].content)
    assert before["d"] == [("bolt", (4, 3, 60, 45))] and after["d"] == [("bolt", (5, 4, 61, 46))]


@pytest.mark.parametrize("bad", [(0, 0, 0, 0), (-9, -9, -1, -1), (0, 5, 0, 9)])
def test_a_box_that_is_left_out_says_nothing_about_the_origin(voc, bad):
    before = boxes_in(read_folder(str(voc)).splits["val"].content)
    text = xml_of("b", [*IMAGES["b"][1], ("nut", tuple(value - 1 for value in bad))])
    write_text(voc / "Annotations/b.xml", text)
    data = read_folder(str(voc))
    assert boxes_in(data.splits["val"].content) == before
    assert boxes_in(data.splits["train"].content)["b"] == IMAGES["b"][1]
    assert sum(data.counts.number.values()) == 1


def test_difficult_objects_are_ignored(voc):
    text = xml_of("a", IMAGES["a"][1])
    write_text(
        voc / "Annotations/a.xml", text.replace("<bndbox>", "<difficult>1</difficult><bndbox>", 1)
    )
    found = read_folder(str(voc)).splits["train"].content["annotations"]
    assert [box["iscrowd"] for box in found] == [1, 0, 0, 0]


def test_trainval_is_train_only_where_there_is_no_train(voc):
    write_text(voc / "ImageSets/Main/trainval.txt", "a\nb\nc\nd\ne\n")
    assert len(read_folder(str(voc)).splits["train"]) == 3
    (voc / "ImageSets/Main/train.txt").unlink()
    (voc / "ImageSets/Main/val.txt").unlink()
    data = read_folder(str(voc))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 5, "test": 1}


def test_without_lists_there_is_one_split(tmp_path):
    root = tmp_path / "voc"
    for name, (_, boxes) in IMAGES.items():
        write_image(root / f"{name}.png")
        write_text(root / f"{name}.xml", xml_of(name, boxes))
    assert {name: len(split) for name, split in read_folder(str(root)).splits.items()} == {"": 6}


def test_what_does_not_fit_is_counted(voc):
    write_image(voc / "JPEGImages/g.jpg")
    write_text(voc / "Annotations/g.xml", xml_of("g", IMAGES["a"][1]))
    write_text(voc / "ImageSets/Main/train.txt", "a\nb\nc\ng\n")
    (voc / "JPEGImages/a.jpg").unlink()
    (voc / "JPEGImages/b.jpg").write_bytes(b"no image")
    write_text(voc / "Annotations/c.xml", "<annotation>")
    (voc / "Annotations/d.xml").unlink()
    write_text(voc / "Annotations/f.xml", xml_of("f", IMAGES["f"][1], size=(128, 96)))
    write_text(voc / "Annotations/more.xml", xml_of("more", []))
    data = read_folder(str(voc))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1, "val": 1, "test": 1}  # fmt: skip
    assert data.counts.number == {
        "missing images": 1,
        "unreadable images": 1,
        "unreadable annotations": 1,
        "images of another size than their annotation says": 1,
        "images in no split": 1,
        "images without an annotation file": 1,
    }
    assert data.counts.first["unreadable annotations"] == "Annotations/c.xml"


def test_no_usable_box_is_an_error(voc):
    for path in (voc / "JPEGImages").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="no VOC annotation has a usable box.*6 unreadable images"):
        read_folder(str(voc))


def test_names_with_spaces_in_lists(voc):
    for name, new in (("a", "my image a"), ("b", "b 1"), ("c", "my c")):
        (voc / f"JPEGImages/{name}.jpg").rename(voc / f"JPEGImages/{new}.jpg")
        (voc / f"Annotations/{name}.xml").rename(voc / f"Annotations/{new}.xml")
    write_text(voc / "ImageSets/Main/train.txt", "my image a\nb 1\n  my c.jpg  1\n\n")
    write_text(voc / "ImageSets/Main/test.txt", "f  1\n")
    data = read_folder(str(voc))
    assert set(boxes_in(data.splits["train"].content)) == {"my image a", "b 1", "my c"}
    assert len(data.splits["test"]) == 1 and str(data.counts) == ""


def test_images_of_a_split_without_a_file_are_counted(tmp_path):
    root = write_folder(tmp_path / "set", "Roboflow VOC")
    write_image(root / "valid/g.jpg")
    write_image(root / "valid/d.png")  # another one of an image that has a file
    write_image(root / "valid/h.jpg")
    write_text(root / "valid/h.xml", "<annotation>")
    write_image(root / "more/i.jpg")
    data = read_folder(str(root))
    assert data.counts.number == {
        "unreadable annotations": 1,
        "images without an annotation file": 1,
    }
    assert data.counts.first["images without an annotation file"] == "valid/g.jpg"
    assert "val: 2 of 4 images are left out" in data.warnings[0]
