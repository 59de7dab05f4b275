"""COCO folders: which file is which split, where the images are, Roboflow's exports."""

import json

import pytest
from helpers.data_folders import IMAGES, boxes_in, coco_of, write_folder, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


@pytest.fixture
def coco(tmp_path):
    return write_folder(tmp_path / "coco", "COCO")


def rewrite(path, **kwargs):
    path.write_text(json.dumps({**json.loads(path.read_text()), **kwargs}))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train2017.json", "val2017.json"], ["train", "val"]),
        (["instances_train.json", "captions_train.json"], ["train"]),
        (["instances_trainval.json", "instances_test.json"], ["train", "test"]),
        (["instances_trainval.json", "instances_train.json"], ["train"]),
        (["valid/labels.json", "train/labels.json"], ["train", "val"]),
        (["labels.json"], [""]),
        (["labels.json", "labels_val.json"], ["val"]),
    ],
)
def test_the_split_is_in_the_name_of_the_file_or_folder(tmp_path, names, splits):
    write_image(tmp_path / "images/b.jpg")
    for name in names:
        content = coco_of("b") if "captions" not in name else {"images": [], "annotations": [0]}
        write_text(tmp_path / name, content)
    assert list(read_folder(str(tmp_path)).splits) == splits


def test_two_files_of_one_split(coco):
    write_text(coco / "annotations/instances_train2.json".replace("2", "_b"), coco_of("b"))
    with pytest.raises(InputError, match="both COCO files of train split"):
        read_folder(str(coco))


def test_images_in_folders_of_their_own(tmp_path):
    for folder in ("train2017", "val2017"):  # the same names in both
        write_image(tmp_path / folder / "b.jpg")
    for split in ("train", "val"):
        write_text(tmp_path / f"annotations/{split}2017/instances_{split}2017.json", coco_of("b"))
    for name, split in read_folder(str(tmp_path)).splits.items():
        assert split.images == tmp_path / f"{name}2017"


def test_images_of_the_same_names_in_both_splits(tmp_path):
    """As tools/dataset_converters/shapes.py writes them: the annotation files are in neither."""
    for split in ("train", "val", "test"):
        write_image(tmp_path / split / "b.jpg")
        write_text(tmp_path / f"annotations/instances_{split}.json", coco_of("b"))
    found = read_folder(str(tmp_path)).splits
    assert {name: split.images for name, split in found.items()} == {
        name: tmp_path / name for name in ("train", "val", "test")
    }


def test_images_that_are_elsewhere(coco):
    for image in (coco / "images").iterdir():
        image.rename(coco / f"images/other_{image.name}")
    with pytest.raises(InputError, match=r"instances_\w+.json: its images, such as \w.jpg, are"):
        read_folder(str(coco))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 3}, "has no list of images"),
        ({"images": [{"id": 1}]}, "not all images have id, file_name"),
        ({"annotations": [{"image_id": 0}]}, "not all annotations have"),
    ],
)
def test_a_malformed_file(coco, change, message):
    rewrite(coco / "annotations/instances_train.json", **change)
    with pytest.raises(InputError, match=message):
        read_folder(str(coco))


def test_a_supercategory_without_boxes_is_no_class(tmp_path):
    root = write_folder(tmp_path / "set", "Roboflow COCO")
    assert read_folder(str(root)).classes == ["nut", "bolt"]
    content = coco_of("a", project=True)
    content["annotations"][0]["category_id"] = 0
    write_text(root / "train/_annotations.coco.json", content)
    assert read_folder(str(root)).classes == ["parts", "nut", "bolt"]


@pytest.mark.parametrize("lacking", ["id", "area", "iscrowd"])
def test_boxes_that_pycocotools_cannot_count_are_completed(coco, lacking):
    path = coco / "annotations/instances_train.json"
    content = coco_of("abc")
    for box in content["annotations"]:
        del box[lacking]
        box["score"] = 0.5
    write_text(path, content)
    split = read_folder(str(coco)).splits["train"]
    assert split.file is None and boxes_in(split.content) == {n: IMAGES[n][1] for n in "abc"}
    assert [box["id"] for box in split.content["annotations"]] == [1, 2, 3, 4]
    assert {box["iscrowd"] for box in split.content["annotations"]} == {0}
    assert split.content["annotations"][0]["area"] == 16 * 12
    assert {box["score"] for box in split.content["annotations"]} == {0.5}


def test_crowds_stay_crowds(coco):
    path = coco / "annotations/instances_train.json"
    content = coco_of("abc", first_id=0)
    content["annotations"][1]["iscrowd"] = 1
    write_text(path, content)
    found = read_folder(str(coco)).splits["train"].content["annotations"]
    assert [box["iscrowd"] for box in found] == [0, 1, 0, 0]


def test_categories_that_differ_between_splits_are_joined(coco):
    val = coco_of("d", categories=[{"id": 7, "name": "bolt"}, {"id": 9, "name": "screw"}])
    val["annotations"][0]["category_id"] = 7
    write_text(coco / "annotations/instances_val.json", val)
    data = read_folder(str(coco))
    assert data.classes == ["nut", "bolt", "screw"]
    for name in ("train", "val"):
        names = [c["name"] for c in data.splits[name].content["categories"]]
        assert names == data.classes
    assert boxes_in(data.splits["val"].content) == {"d": IMAGES["d"][1]}
