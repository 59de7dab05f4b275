"""Where the images of a COCO file are: in one folder, or by their names in several."""

import pytest
from helpers.data_folders import IMAGES, boxes_in, coco_of, write_folder, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError

KIND = "images in another folder than most, found by their name"


def write(root, folders, names="abcdef"):
    """One file of plain names, whose images are in several folders."""
    for folder, images in folders.items():
        for name in images:
            write_image(root / folder / f"{name}.jpg")
    write_text(root / "annotations/instances_train.json", coco_of(names))
    return str(root)


@pytest.mark.parametrize(
    "folders",
    [
        {"images/cam0": "ab", "images/cam1": "cd", "images/cam2": "ef"},
        {"day": "abcd", "night": "ef"},
        {"": "abc", "more": "d", "more/and more": "ef"},
    ],
)
def test_plain_names_of_images_in_several_folders(tmp_path, folders):
    data = read_folder(write(tmp_path, folders))
    split = data.splits["train"]
    assert boxes_in(split.content) == {name: boxes for name, (_, boxes) in IMAGES.items()}
    assert all((split.images / image["file_name"]).is_file() for image in split.content["images"])
    assert split.file is None and split.images == tmp_path and data.warnings == []
    first = next(iter(folders.values()))
    assert data.counts.number == {KIND: 6 - len(first)}


def test_a_file_of_images_in_one_folder_stays(tmp_path):
    data = read_folder(write(tmp_path, {"a/b": "abcdef"}))
    assert data.splits["train"].file and str(data.counts) == ""


def test_names_with_and_without_folders(tmp_path):
    root = write(tmp_path, {"set/day": "abcd", "set/night": "ef"})
    content = coco_of("abcdef")
    for image in content["images"][:4]:
        image["file_name"] = f"day/{image['file_name']}"
    write_text(tmp_path / "annotations/instances_train.json", content)
    data = read_folder(root)
    names = [image["file_name"] for image in data.splits["train"].content["images"]]
    assert names == [f"set/{'night' if n in 'ef' else 'day'}/{n}.jpg" for n in "abcdef"]


def test_missing_images_are_not_those_of_another_split_or_name(tmp_path):
    root = write_folder(tmp_path / "set", "COCO")
    for split, names in (("train", "abc"), ("val", "cde")):
        for name in names:
            write_image(root / f"{split}/{name}.jpg")
    write_text(root / "annotations/instances_val.json", coco_of("abcde"))
    for path in (root / "images").iterdir():
        path.unlink()
    (root / "annotations/instances_test.json").unlink()
    content = coco_of("abcd")
    content["images"][3]["file_name"] = "x/a.jpg"  # another image than a.jpg
    write_text(root / "annotations/instances_train.json", content)
    data = read_folder(str(root))
    assert "".join(boxes_in(data.splits["train"].content)) == "abc"
    assert "".join(boxes_in(data.splits["val"].content)) == "cde"
    assert data.counts.number["missing images"] == 3 and KIND not in data.counts.number


def test_a_name_that_two_images_have(tmp_path):
    root = write(tmp_path, {"cam0": "abcd", "cam1": "ef", "cam2": "ef"})
    with pytest.raises(InputError, match=r"train\.json: e\.jpg fits both cam1/e\.jpg and cam2/e"):
        read_folder(root)
