"""COCO folders: which file is which split, where the images are, Roboflow's exports."""

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
)

from misalign_det.datasets.formats import files, read_folder
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


@pytest.mark.parametrize(
    ("key", "value", "mended"), [("area", 0, 192), ("area", -1, 192), ("iscrowd", None, 0)]
)
def test_values_with_which_training_leaves_boxes_out_are_mended(coco, key, value, mended):
    content = coco_of("abc")
    content["annotations"][0][key] = value
    write_text(coco / "annotations/instances_train.json", content)
    split = read_folder(str(coco)).splits["train"]
    assert split.content["annotations"][0][key] == mended and split.file is None
    assert boxes_in(split.content) == {n: IMAGES[n][1] for n in "abc"}


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


# --- repairs --------------------------------------------------------------------------------------


def train_of(coco, **kwargs):
    """The training split as it is read with changed keys, and what was counted."""
    rewrite(coco / "annotations/instances_train.json", **kwargs)
    data = read_folder(str(coco))
    return data.splits["train"], data.counts.number


def changed(part, number, **kwargs):
    """A list of the file with one changed entry."""
    entries = coco_of("abc")[part]
    entries[number] = {**entries[number], **kwargs}
    return {part: entries}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("categories", 1, id=1), "train.json: category id 1 is both 'nut' and 'bolt'"),
        (changed("categories", 1, name=""), "train.json: category id 2 has an empty name, ''"),
        (changed("categories", 1, name=" \t"), "train.json: category id 2 has an empty name"),
        (changed("categories", 0, name=None), "train.json: category id 1 has an empty name, None"),
        (changed("categories", 0, id=None), "train.json: id of categories is a number or a string"),
        (changed("images", 1, id=0), "train.json: image id 0 is both a.jpg and b.jpg"),
        (changed("images", 1, id=[1]), "train.json: id of images is a number or a string, not"),
        (changed("annotations", 0, image_id=None), "train.json: image_id of annotations is a num"),
    ],
)
def test_what_cannot_be_repaired(coco, change, message):
    with pytest.raises(InputError, match=message):
        train_of(coco, **change)


def test_categories_of_the_same_name_are_merged(coco):
    content = coco_of("abc")
    content["categories"].append({"id": 7, "name": "nut"})
    content["annotations"][0]["category_id"] = 7
    write_text(coco / "annotations/instances_train.json", content)
    data = read_folder(str(coco))
    assert data.classes == CLASSES
    assert boxes_in(data.splits["train"].content) == {n: IMAGES[n][1] for n in "abc"}
    assert "'nut' has the ids 1 and 7). If they are different classes" in data.warnings[0]


def test_a_category_listed_twice(coco):
    categories = [*coco_of("a")["categories"], {"id": 1, "name": "nut"}]
    split, counted = train_of(coco, categories=categories)
    assert boxes_in(split.content)["a"] == IMAGES["a"][1]
    assert counted == {"categories listed twice": 1}


def test_names_that_are_numbers(coco):
    for path in (coco / "annotations").iterdir():
        rewrite(path, categories=[{"id": 1, "name": 0}, {"id": 2, "name": 1}])
    data = read_folder(str(coco))
    assert data.classes == ["0", "1"] and data.splits["train"].file is None


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("key", [0, 9])
def test_an_image_listed_twice_is_one(coco, key, copies):
    content = coco_of("abc")
    content["images"].append({**content["images"][0], "id": key, "file_name": "./a.jpg"})
    for i, box in enumerate(list(content["annotations"])[:2]):
        place = box["bbox"] if copies else [1, 1, 5, 5]
        content["annotations"].append({**box, "id": 100 + i, "image_id": key, "bbox": place})
    split, counted = train_of(coco, **content)
    more = [] if copies else [("nut", (1, 1, 6, 6)), ("bolt", (1, 1, 6, 6))]
    assert boxes_in(split.content) == {**{n: IMAGES[n][1] for n in "abc"},
                                       "a": IMAGES["a"][1] + more}  # fmt: skip
    assert counted == {"images listed twice": 1} | ({"boxes listed twice": 2} if copies else {})


@pytest.mark.parametrize("key", ["image_id", "category_id"])
@pytest.mark.parametrize("part", ["annotations", "entries"])
def test_ids_of_another_type_are_made_alike(coco, key, part):
    content = coco_of("abc")
    entries = content["images" if key == "image_id" else "categories"]
    for entry in content["annotations"] if part == "annotations" else entries:
        name = key if part == "annotations" else "id"
        entry[name] = str(entry[name])
    split, counted = train_of(coco, **content)
    assert boxes_in(split.content) == {n: IMAGES[n][1] for n in "abc"}
    assert split.file is None and list(counted.values()) == [4]
    kinds = ("string", "number") if part == "annotations" else ("number", "string")
    assert f"boxes whose {key} is a {kinds[0]} and the id in" in next(iter(counted))
    assert f"a {kinds[1]} (kept)" in next(iter(counted))


def test_ids_may_be_strings(coco):
    content = coco_of("abc")
    for entry in content["images"]:
        entry["id"] = f"n{entry['id']}"
    for box in content["annotations"]:
        box["image_id"] = f"n{box['image_id']}"
    split, counted = train_of(coco, **content)
    assert boxes_in(split.content) == {n: IMAGES[n][1] for n in "abc"} and not counted


def test_boxes_of_other_images_are_refused(coco):
    boxes = [{**box, "image_id": box["image_id"] + 50} for box in coco_of("abc")["annotations"]]
    with pytest.raises(InputError, match="train: 4 of 4 boxes .*instances_train.json: image id 50"):
        train_of(coco, annotations=boxes)


def test_boxes_that_are_no_numbers_are_left_out(coco):
    boxes = coco_of("abc")["annotations"]
    boxes[0]["bbox"] = None
    boxes[1]["bbox"] = [1, 2, float("nan"), 4]
    boxes[2]["bbox"] = ["8", "6", "16", "24"]
    split, counted = train_of(coco, annotations=boxes)
    assert boxes_in(split.content) == {"a": [], "b": IMAGES["b"][1], "c": IMAGES["c"][1]}
    assert split.content["annotations"][0]["bbox"] == [8, 6, 16, 24]
    assert counted == {"unreadable boxes": 2}


def test_flags_that_are_strings(coco):
    boxes = coco_of("abc")["annotations"]
    boxes[0]["iscrowd"], boxes[1]["iscrowd"] = "0", "1"
    split, _ = train_of(coco, annotations=boxes)
    assert [box["iscrowd"] for box in split.content["annotations"]] == [0, 1, 0, 0]


def test_missing_images_are_left_out_with_their_boxes(coco):
    (coco / "images/a.jpg").unlink()
    (coco / "images/b.jpg").write_bytes(b"no image")
    data = read_folder(str(coco))
    split = data.splits["train"]
    assert boxes_in(split.content) == {"c": IMAGES["c"][1]} and split.file is None
    assert data.splits["val"].file
    assert data.counts.number == {
        "missing images": 1,
        "unreadable images": 1,
        "boxes of images that are left out": 3,
    }
    assert data.counts.first["missing images"] == "images/a.jpg"


@pytest.mark.parametrize("side", [None, 0, "64", "absent"])
@pytest.mark.parametrize("limit", [2000, 0])
def test_sizes_that_are_not_stated_are_read_from_the_images(coco, side, limit, monkeypatch):
    monkeypatch.setattr(files, "_DECODED_IMAGES", limit)  # in a large folder too
    images = [{**image, "width": side} for image in coco_of("abc")["images"]]
    if side == "absent":
        images = [{"id": image["id"], "file_name": image["file_name"]} for image in images]
    split, counted = train_of(coco, images=images)
    assert {(i["width"], i["height"]) for i in split.content["images"]} == {(64, 48)}
    assert counted == {"images without a size, which was read from the file": 3}


def test_a_wrong_size_is_a_warning(coco):
    split, counted = train_of(coco, **changed("images", 0, width=640, height=480))
    assert (split.content["images"][0]["width"], split.content["images"][0]["height"]) == (64, 48)
    assert counted == {"images of another size than their annotation says": 1}
    assert (
        "Boxes are misplaced if they were drawn in that size" in read_folder(str(coco)).warnings[0]
    )


def test_few_of_many_images_that_are_there(tmp_path):
    """Such as a thousand images of COCO with its annotation file."""
    write_image(tmp_path / "images/b.jpg")
    content = coco_of("b")
    others = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(5, 2000)]
    content["images"] = [*others[:999], *content["images"], *others[999:]]
    write_text(tmp_path / "annotations/instances_train.json", content)
    data = read_folder(str(tmp_path))
    assert boxes_in(data.splits["train"].content) == {"b": IMAGES["b"][1]}
    assert "train: 1995 of 1996 images are left out" in data.warnings[0]
