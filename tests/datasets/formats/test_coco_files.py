"""COCO folders: which JSON files are COCO's, and the forms of file names."""

import json

import pytest
from helpers.data_folders import (
    IMAGES,
    boxes_in,
    coco_of,
    write_folder,
    write_image,
    write_text,
    xml_of,
)

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


@pytest.fixture
def coco(tmp_path):
    return write_folder(tmp_path / "coco", "COCO")


# --- which files are COCO's -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 9000])
@pytest.mark.parametrize("order", [("images", "annotations", "categories"),
                                   ("categories", "annotations", "images"),
                                   ("categories", "images", "annotations")])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_the_lists_may_be_anywhere_in_a_file(tmp_path, order, size, encoding):
    """Beyond what is read first: many categories, and boxes with long texts."""
    write_image(tmp_path / "b.jpg")
    write_text(tmp_path / "b.xml", xml_of("b", IMAGES["a"][1]))  # a file that is COCO's comes first
    content = coco_of("b")
    content["categories"] += [{"id": i, "name": f"class {i}"} for i in range(5, 5 + size // 30)]
    content["annotations"][0]["note"] = content["images"][0]["note"] = "x" * size
    text = json.dumps({key: content[key] for key in order})
    (tmp_path / "labels.json").write_bytes(text.encode(encoding))
    assert boxes_in(read_folder(str(tmp_path)).splits[""].content) == {"b": IMAGES["b"][1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:60], "labels.json is not valid JSON"),
        (lambda text: text.replace('"annotations"', '"boxes"'), "has no list of annotations."),
        (lambda text: text.replace('"images": [', '"images": 3, "i": ['), "has no list of images."),
    ],
)
@pytest.mark.parametrize("name", ["b.xml", "classes.txt"])
def test_a_damaged_file_is_named_only_where_nothing_else_fits(tmp_path, name, change, message):
    write_image(tmp_path / "b.jpg")
    write_text(tmp_path / "a.json", {"version": 1})
    write_text(tmp_path / "labels.json", change(json.dumps(coco_of("b"))))
    with pytest.raises(InputError, match=message):
        read_folder(str(tmp_path))
    write_text(tmp_path / name, xml_of("b", IMAGES["b"][1]) if name == "b.xml" else "nut\n")
    if name == "b.xml":
        assert read_folder(str(tmp_path)).format == "VOC"
    else:
        with pytest.raises(InputError, match=message):
            read_folder(str(tmp_path))


def test_a_file_of_something_else_beside_it(tmp_path):
    write_image(tmp_path / "b.jpg")
    write_text(tmp_path / "result.json", coco_of("b"))
    write_text(tmp_path / "notes.json", {"categories": []})
    write_text(tmp_path / "a.json", {"images": 5})
    assert boxes_in(read_folder(str(tmp_path)).splits[""].content) == {"b": IMAGES["b"][1]}


def test_a_file_whose_name_has_no_split_beside_those_that_have(coco):
    """It is left out with a warning; where it would be train's, that is an error."""
    write_text(coco / "captions.json", {**coco_of("a"), "annotations": [{"caption": "a"}]})
    assert not read_folder(str(coco)).warnings
    write_text(coco / "data.json", coco_of("abde"))
    data = read_folder(str(coco))
    assert [len(split) for split in data.splits.values()] == [3, 2, 1]
    assert "1 COCO files that are not read, since the names of others have splits (first: " \
        "data.json)" in data.warnings[0]  # fmt: skip
    write_image(coco / "images/z.jpg")
    content = coco_of("ab")
    content["images"][1]["file_name"] = "z.jpg"
    write_text(coco / "data.json", content)
    assert "data.json: 1 images that no other has" in read_folder(str(coco)).warnings[0]
    (coco / "annotations/instances_train.json").unlink()
    with pytest.raises(InputError, match="data.json: 2 of its images, such as images/a.jpg, are"):
        read_folder(str(coco))
    content["annotations"] = content["annotations"][:0]  # images alone are no annotations
    write_text(coco / "data.json", content)
    assert list(read_folder(str(coco)).splits) == ["val", "test"]


# --- file names -----------------------------------------------------------------------------------

MOVED = "images found elsewhere than their file_name says"


def named(root, names, **kwargs):
    """{image: number of its boxes}, and what was counted, of a file with these file names."""
    content = coco_of("abcdef"[: len(names)])
    for image, name in zip(content["images"], names):
        image["file_name"] = name
    write_text(root / "annotations/result.json", content)
    data = read_folder(str(root), **kwargs)
    (split,) = data.splits.values()
    number = dict.fromkeys((image["id"] for image in split.content["images"]), 0)
    for box in split.content["annotations"]:
        number[box["image_id"]] += 1
    found = {
        (split.images / image["file_name"]).relative_to(root).as_posix(): number[image["id"]]
        for image in split.content["images"]
    }
    return found, data.counts.number


@pytest.mark.parametrize("place", ["images\\", "../images/", ".\\images\\", "{root}/images/",
                                   "{root}/annotations/../images/"])  # fmt: skip
def test_names_of_windows_and_absolute_ones(tmp_path, place):
    for name in "ab":
        write_image(tmp_path / f"images/{name}.jpg")
    names = [f"{place.format(root=tmp_path)}{name}.jpg" for name in "ab"]
    assert named(tmp_path, names) == ({"images/a.jpg": 2, "images/b.jpg": 1}, {})
    assert named(tmp_path, [names[0], "images/b.jpg"])[0] == {"images/a.jpg": 2, "images/b.jpg": 1}


@pytest.mark.parametrize(
    "place", ["../../label-studio/media/1/", "/elsewhere/images/", "C:\\my data\\", "D:/x/"]
)
def test_names_of_another_machine(tmp_path, place):
    for name in "ab":
        write_image(tmp_path / f"images/{name}.jpg")
    found, counted = named(tmp_path, [f"{place}{name}.jpg" for name in "ab"])
    assert found == {"images/a.jpg": 2, "images/b.jpg": 1} and counted == {MOVED: 2}


def test_names_with_the_same_end_are_not_the_same_image(tmp_path):
    """One image is missing; its boxes may not go to the other of its name."""
    for place in ("cam2/1.jpg", "cam1/2.jpg"):
        write_image(tmp_path / place)
    names = ["/data/cam1/1.jpg", "/data/cam2/1.jpg", "/data/cam1/2.jpg"]
    found, counted = named(tmp_path, names)
    assert found == {"cam2/1.jpg": 1, "cam1/2.jpg": 1}
    assert counted == {MOVED: 2, "missing images": 1, "boxes of images that are left out": 2}
    found, _ = named(tmp_path, [f"{tmp_path}/cam2/1.jpg", "/x/y/1.jpg", "/data/cam1/2.jpg"])
    assert found == {"cam2/1.jpg": 2, "cam1/2.jpg": 1}  # the first is exact
    found, _ = named(tmp_path, ["/x/1.jpg", "/y/1.jpg", "/data/cam1/2.jpg"])
    assert found == {"cam1/2.jpg": 1}


def test_names_of_images_that_are_nowhere(tmp_path):
    write_image(tmp_path / "images/z.jpg")
    for name in ("C:\\images\\a.jpg", "../images/a.jpg", "images/a.jpg"):
        with pytest.raises(InputError, match=r"a.jpg, are not below .*Give the folder that has"):
            named(tmp_path, [name])
