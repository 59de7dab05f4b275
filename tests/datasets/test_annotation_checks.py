"""COCO files that are malformed, and categories that are not the dataset's classes."""

import pytest
from helpers.coco_set import CLASSES, CocoSet
from mmdet.registry import DATASETS

from misalign_det.datasets.annotation_checks import Remark
from misalign_det.datasets.preflight import check_config

WHERE = "train_dataloader.dataset"


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


@pytest.mark.parametrize("text", ["", "<html>404</html>", '{"images": [{"id": 1'])
def test_annotation_file_that_is_not_json(good, text):
    good.write(text)
    said = good.fault()
    assert f"{good.file} is not valid JSON" in said
    assert f"the file has {len(text)} bytes" in said and "cut off" in said


def test_annotation_file_with_bytes_that_are_no_text(good):
    good.file.write_bytes(b"\x80\x04\x95 a pickle")
    assert "is not valid JSON" in good.fault()


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_json_without_a_list_that_coco_needs(good, part):
    del good.content[part]
    good.write()
    said = good.fault()
    assert f"has no list of objects {part!r}" in said
    assert "COCO format is an object with the lists images, annotations, categories" in said


def test_json_list_instead_of_object(good):
    good.write("[1, 2]")
    assert "holds a JSON list. COCO format is an object" in good.fault()


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("images", "file_name"),
        ("images", "width"),
        ("annotations", "bbox"),
        ("annotations", "area"),
        ("annotations", "category_id"),
        ("categories", "name"),
    ],
)
def test_entry_without_a_key(good, part, key):
    del good.content[part][1][key]
    good.write()
    count = len(good.content[part])
    assert f"1 of {count} {part} lack the key {key!r} (first: index 1 of the list)" in good.fault()


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_an_id_twice(good, part):
    good.content[part][1]["id"] = good.content[part][0]["id"]
    good.write()
    assert f"ids of {part} occur more than once: {good.content[part][0]['id']}" in good.fault()


@pytest.mark.parametrize(("key", "part"), [("image_id", "image"), ("category_id", "category")])
def test_annotation_that_points_nowhere(good, key, part):
    good.content["annotations"][2][key] = 77
    good.write()
    said = good.fault()
    article = dict(image="an", category="a")[part]
    assert f"refer to {article} {part} that the file does not list ({key} 77;" in said
    assert "1 of 4 annotations" in said
    assert "annotation ids 12" in said


@pytest.mark.parametrize(
    "box", [[1, 2, 3], [1, 2, 3, "4"], None, [0, 0, float("inf"), 5], [float("nan"), 0, 5, 5]]
)
def test_box_that_is_not_four_numbers(good, box):
    good.content["annotations"][3]["bbox"] = box
    good.write()
    said = good.fault()
    assert "1 annotations have a bbox that is not four finite numbers" in said
    assert "the first has id 13" in said


def test_no_images_listed(good):
    good.content.update(images=[], annotations=[])
    assert "lists no images" in good.write().fault()


# --- classes ---------------------------------------------------------------------------------


def test_category_that_the_metainfo_lacks(good):
    good.content["categories"].append({"id": 9, "name": "owl"})
    good.content["annotations"][0]["category_id"] = 9
    good.write()
    said = good.fault(num_classes=3)
    assert "has the category 'owl' (1 boxes), which is not a class of the dataset" in said
    assert "The file has: cat, dog, fox, owl. The dataset's metainfo has: cat, dog, fox." in said
    assert f"Set {WHERE}.metainfo.classes=('cat', 'dog', 'fox', 'owl',)" in said
    assert "num_classes to 4" in said and "preflight.extra_categories=skip" in said


def test_category_that_the_metainfo_lacks_can_be_left_out(good):
    good.content["categories"].append({"id": 9, "name": "owl"})
    good.content["annotations"][0]["category_id"] = 9
    cfg = good.write().config()
    cfg.preflight = {"extra_categories": "skip"}
    notes = check_config(cfg, ("train",))
    assert any(
        "category 'owl' (1 boxes) is not a class of the dataset and is left out" in n for n in notes
    )
    assert any("1 of 4 images have no objects" in n for n in notes)


def test_class_that_the_file_lacks(good):
    good.content["categories"][1]["name"] = "Dog "
    good.write()
    said = good.fault()
    assert "has no category 'dog'" in said
    assert "The file has: cat, Dog , fox. The dataset's metainfo has: cat, dog, fox." in said
    assert "case and spaces count" in said


def test_cocos_own_classes_left_in_place_by_mistake(good):
    said = good.fault(metainfo=None)
    assert "has no category 'person', 'bicycle'" in said and "(80 in all)" in said
    assert "The file has: cat, dog, fox." in said


def test_classes_in_another_order_would_exchange_labels(good):
    said = good.fault(metainfo={"classes": ("dog", "cat", "fox")})
    assert "in another order" in said
    assert f"Set {WHERE}.metainfo.classes=('cat', 'dog', 'fox',)" in said
    data = DATASETS.build(good.dataset(metainfo={"classes": ("dog", "cat", "fox")}))
    first = data.get_data_info(0)["instances"][0]["bbox_label"]
    assert data.metainfo["classes"][first] == "dog", "mmdet calls the cat of image 0 a dog"


def test_a_category_without_boxes_that_is_no_class_is_a_note(good):
    """Roboflow adds the project's name as a supercategory, with id 0."""
    good.content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    notes = good.write().notes(("train", "val"))
    assert notes[0] == (
        f"{WHERE}: the category 'animals' has no boxes and is not a class of the "
        "dataset; it has no effect."
    )
    assert len(notes) == 2 and all(isinstance(n, Remark) for n in notes)
    data = DATASETS.build(good.dataset())
    labels = [data.get_data_info(i)["instances"][0]["bbox_label"] for i in range(4)]
    assert [CLASSES[n] for n in labels] == ["cat", "dog", "fox", "cat"], "no label is shifted"


def test_categories_with_and_without_boxes_that_are_no_class(good):
    good.content["categories"] += [{"id": 8, "name": "owl"}, {"id": 9, "name": "eel"}]
    good.content["annotations"][0]["category_id"] = 8
    assert "has the category 'owl' (1 boxes)" in good.write().fault()


def test_two_categories_of_one_name_would_shift_labels_even_without_boxes(good):
    good.content["categories"].insert(0, {"id": 0, "name": "cat"})
    assert "several categories called cat" in good.write().fault()
    data = DATASETS.build(good.dataset())
    assert data.get_data_info(0)["instances"][0]["bbox_label"] == 1, "a dog, for mmdet"


@pytest.mark.parametrize(
    ("part", "key", "value", "what"),
    [
        ("images", "id", [1], "a number or a string"),
        ("images", "width", "64", "a number"),
        ("images", "height", None, "a number"),
        ("images", "file_name", 7, "a string"),
        ("annotations", "id", None, "a number or a string"),
        ("annotations", "area", "9", "a number"),
        ("annotations", "image_id", {}, "a number or a string"),
        ("categories", "name", 5, "a string"),
        ("annotations", "category_id", [1], "a number or a string"),
    ],
)
def test_a_value_of_the_wrong_type(good, part, key, value, what):
    good.content[part][1][key] = value
    count = len(good.content[part])
    said = good.write().fault()
    assert f"{key} of 1 of {count} {part} is not {what}: {value!r} (ids" in said


@pytest.mark.parametrize(("key", "part"), [("image_id", "images"), ("category_id", "categories")])
def test_ids_written_in_another_way_than_what_they_point_to(good, key, part):
    for annotation in good.content["annotations"][1:3]:
        annotation[key] = str(annotation[key])
    said = good.write().fault()
    assert f"{key} of 2 of 4 annotations is written as str, the ids of {part} as int" in said
    assert "annotation ids 11, 12" in said and "Write both alike" in said


def test_string_ids_throughout_are_fine(good):
    for image in good.content["images"]:
        image["id"] = f"i{image['id']}"
    for annotation in good.content["annotations"]:
        annotation["image_id"] = f"i{annotation['image_id']}"
    assert good.write().notes(("train", "val")) == []


def test_many_names_are_cut_short(good):
    names = [f"c{i}" for i in range(12)]
    good.content["categories"] = [{"id": i + 1, "name": n} for i, n in enumerate(names)]
    said = good.write().fault()
    assert "'c9',...)" in said and "'c10'" not in said
