"""AP under ids of any kind and files of any completeness, beside mmdet's CocoMetric."""

import json

import numpy as np
import pytest
from helpers.evaluation_cases import META, detections, evaluate
from mmdet.evaluation import CocoMetric

from misalign_det.errors import InputError
from misalign_det.evaluation.coco_ap import (
    average_precision,
    best_of_class,
    category_ids,
    index_annotations,
    is_crowd,
    load_annotations,
    matched_boxes,
)
from misalign_det.evaluation.paired_bootstrap import coco_figures


def renamed(path, tmp_path, images=lambda i: i, objects=lambda i: i, categories=lambda i: i):
    """The file under other ids, and its detections."""
    content = json.loads(open(path).read())
    for image in content["images"]:
        image["id"] = images(image["id"])
    for category in content["categories"]:
        category["id"] = categories(category["id"])
    for found in content["annotations"]:
        found.update(id=objects(found["id"]), image_id=images(found["image_id"]),
                     category_id=categories(found["category_id"]))  # fmt: skip
    new = tmp_path / "renamed.json"
    new.write_text(json.dumps(content))
    return str(new), [dict(s, img_id=images(s["img_id"])) for s in detections()]


KINDS = {
    "words": dict(images="img_{:03d}".format),
    "digits": dict(images="{:06d}".format),
    "large": dict(images=lambda i: 10**15 + i),
    "numpy": dict(images=lambda i: i),
    "categories": dict(categories="c{}".format),
    "negative categories": dict(categories=lambda i: i - 5),
    "objects": dict(objects="a{}".format),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_do_not_change_the_figures(ann_file, tmp_path, kind):
    path, found = renamed(ann_file, tmp_path, **KINDS[kind])
    if kind == "numpy":
        found = [dict(s, img_id=np.int64(s["img_id"])) for s in found]
    mine = evaluate(found, path, classwise=True)
    expected = evaluate(detections(), ann_file, classwise=True)
    for name, value in expected.items():
        assert mine[name] == pytest.approx(value, nan_ok=True), name
    theirs = evaluate(detections(), ann_file, CocoMetric(ann_file=ann_file, metric="bbox"))
    assert mine["misalignment/AP"] == pytest.approx(theirs["coco/bbox_mAP"], abs=6e-4)
    if kind in ("words", "digits"):
        theirs = evaluate(found, path, CocoMetric(ann_file=path, metric="bbox"))
        assert mine["misalignment/AP"] == pytest.approx(theirs["coco/bbox_mAP"], abs=6e-4)
    figures = coco_figures(load_annotations(path), numpy_of(found), META["classes"])
    assert figures["AP"] == pytest.approx(expected["misalignment/AP"])


def numpy_of(found):
    return [dict(s, pred_instances={k: v.numpy() for k, v in s["pred_instances"].items()})
            for s in found]  # fmt: skip


def test_numbers_and_texts_side_by_side(ann_file, tmp_path):
    path, found = renamed(ann_file, tmp_path, images=lambda i: i if i == 1 else f"00{i}")
    mine, expected = evaluate(found, path), evaluate(detections(), ann_file)
    assert mine == pytest.approx(expected, nan_ok=True)


def perfect(content):
    names = [c["name"] for c in content["categories"]]
    label = {c["id"]: i for i, c in enumerate(content["categories"])}
    found = []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        part = dict(bboxes=boxes, scores=np.full(len(own), 0.9),
                    labels=np.array([label[a["category_id"]] for a in own], int))  # fmt: skip
        found.append(dict(img_id=image["id"], pred_instances=part))
    return found, names


@pytest.mark.parametrize("first", [0, 1, -2])
def test_objects_may_be_numbered_from_any_number(ann_file, first):
    """pycocotools takes a match with the annotation of id 0 for none."""
    content = json.loads(open(ann_file).read())
    for number, found in enumerate(content["annotations"], first):
        found["id"] = number
    found, names = perfect(content)
    assert coco_figures(index_annotations(content), found, names)["AP"] == 1


def test_other_categories_crowds_and_missing_keys(ann_file):
    content = json.loads(open(ann_file).read())
    found, names = perfect(content)
    for one in content["annotations"]:  # an exporter that leaves both out
        del one["area"], one["iscrowd"]
    coco = index_annotations(content)
    assert coco_figures(coco, found, names)["AP"] == 1
    # Dogs only: detections of cats do not count.
    dogs = [
        dict(s, pred_instances={k: v[s["pred_instances"]["labels"] == 1]
                                for k, v in s["pred_instances"].items()})
        for s in found
    ]  # fmt: skip
    for sample in dogs:
        sample["pred_instances"]["labels"] = sample["pred_instances"]["labels"] * 0
    assert coco_figures(coco, dogs, ("dog",)) == dict(AP=1, AP50=1, AP75=1)
    # Objects of images that the file does not list do not count.
    stray = dict(content["annotations"][0], id=99, image_id=77)
    stray = dict(content, annotations=[*content["annotations"], stray])
    assert coco_figures(index_annotations(stray), found, names)["AP"] == 1
    # A region of many is neither missed nor found.
    content["annotations"][0]["iscrowd"] = "1"
    found[0]["pred_instances"] = {k: v[1:] for k, v in found[0]["pred_instances"].items()}
    assert coco_figures(index_annotations(content), found, names)["AP"] == 1
    content["annotations"][0]["iscrowd"] = "0"
    assert coco_figures(index_annotations(content), found, names)["AP"] < 1


@pytest.mark.parametrize(
    "flag, crowd",
    [(0, False), (1, True), ("0", False), ("1", True), (True, True), ("false", False),
     (None, False), ("", False), ("True", True)],
)  # fmt: skip
def test_crowd_flags(flag, crowd):
    assert is_crowd(dict(iscrowd=flag)) is crowd
    assert is_crowd({}) is False


def test_boxes_that_count():
    """Those of largest score, 100 an image by default."""
    coco = index_annotations(dict(
        images=[dict(id="a")], categories=[dict(id=0, name="x"), dict(id=1, name="y")],
        annotations=[dict(id=0, image_id="a", category_id=0, bbox=[0, 0, 10, 10]),
                     dict(id=1, image_id="a", category_id=0, bbox=[20, 0, 10, 10])]))  # fmt: skip
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    arguments = ["a", "a"], boxes, [0.9, 0.8], [0, 0], [0, 1]
    both = average_precision(coco, *arguments)
    assert both[0] == 1 and np.isnan(both[1])
    first = average_precision(coco, *arguments, max_dets=1)
    assert first[0] == pytest.approx(51 / 101)
    boxes = np.array([[500, 0, 510, 10]] * 99 + [[0, 0, 10, 10], [20, 0, 30, 10]], float)
    arguments = ["a"] * 101, boxes, np.linspace(1, 0.1, 101), [0] * 101, [0, 1]
    # The hundredth finds its object, the one after it does not count.
    assert average_precision(coco, *arguments)[0] == pytest.approx(51 / 101 / 100)
    assert matched_boxes(coco, *arguments).params.maxDets == [100]
    more = average_precision(coco, *arguments, max_dets=101)[0]
    assert more > average_precision(coco, *arguments)[0]


def test_which_boxes_count_is_known_before_they_are_ranked_by_something_else():
    images = np.array(["a", "a", "a", 1, "a", "a"], dtype=object)
    scores = np.array([0.5, 0.7, 0.5, 0.1, 0.2, 0.1])
    labels = np.array([0, 0, 0, 0, 0, 1])
    assert best_of_class(images, scores, labels, 2).tolist() == [1, 1, 0, 1, 0, 1]
    assert best_of_class(images, scores, labels).all()
    assert best_of_class(np.zeros(101), np.linspace(0, 1, 101), np.zeros(101)).sum() == 100


def test_files_that_cannot_be_used_are_named(tmp_path, ann_file):
    with pytest.raises(InputError, match="no annotation file"):
        load_annotations(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_annotations(tmp_path / "a.json")
    good = json.loads(open(ann_file).read())
    for wrong, message in (
        ([], "JSON list"),
        (dict(good, images=None), "'images'"),
        ({k: v for k, v in good.items() if k != "categories"}, "'categories'"),
        (dict(good, annotations=[dict(id=1, image_id=1, category_id=3)]), "no 'bbox'"),
        (dict(good, images=[dict(file_name="x")]), "no 'id'"),
    ):
        with pytest.raises(InputError, match=message):
            index_annotations(wrong)
    coco = load_annotations(ann_file)
    assert load_annotations(coco) is coco
    assert index_annotations({k: v for k, v in good.items() if k != "annotations"}).anns == {}


@pytest.mark.parametrize(
    "wrong, said",
    [
        (dict(area=None), "has the area None. It must be a number"),
        (dict(area="120"), "has the area '120'"),
        (dict(area=float("nan")), "has the area nan"),
        (dict(bbox=None), "has the bbox None. It must be four numbers"),
        (dict(bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\]"),
        (dict(bbox=["1", "2", "3", "4"]), "has the bbox"),
        (dict(bbox=[1, 2, float("inf"), 4]), "has the bbox"),
        (dict(bbox="abcd"), "has the bbox 'abcd'"),
    ],
)
def test_annotations_without_numbers_are_named(ann_file, wrong, said):
    content = json.loads(open(ann_file).read())
    content["annotations"][2].update(wrong)
    with pytest.raises(InputError, match=f"a file: the annotation with id 3 {said}"):
        index_annotations(content, "a file")


def test_classes_that_do_not_fit_are_named(ann_file):
    content = json.loads(open(ann_file).read())
    coco = index_annotations(content)
    assert category_ids(coco, ("dog", "cat")) == [8, 3]
    assert category_ids(coco, "dog") == [8]
    with pytest.raises(InputError, match="list of classes has 'cat' several times"):
        category_ids(coco, ("cat", "cat"))
    with pytest.raises(InputError, match="no category 'gnu' .and 1 others"):
        category_ids(coco, ("gnu", "cat", "elk"))
    content["categories"].append(dict(id=20, name="dog"))
    with pytest.raises(InputError, match="annotation file has 'dog' several times"):
        category_ids(coco, ("cat", "dog"))
    assert category_ids(coco, ("cat",)) == [3]
    boxes = np.zeros((1, 4))
    with pytest.raises(InputError, match="label 1, but only 1 classes"):
        matched_boxes(coco, [1], boxes, [0.5], [1], [3])
    with pytest.raises(InputError, match="no image 'x'"):
        matched_boxes(coco, ["x"], boxes, [0.5], [0], [3])
