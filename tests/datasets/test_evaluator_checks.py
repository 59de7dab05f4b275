"""A dataset and the evaluator of its split read the same images, and pycocotools can read them."""

import copy
import json
import shutil

import numpy as np
import pytest
from helpers.coco_set import CLASSES, CocoSet
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS

from misalign_det.datasets.annotation_checks import Remark, is_remote
from misalign_det.datasets.evaluator_checks import metrics, needs_annotations
from misalign_det.datasets.preflight import InputError, check_config
from misalign_det.evaluation import MisalignmentMetric, VisDroneMetric

KEY = "val_evaluator"


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


def other(good, change=None, name="other.json"):
    """Another annotation file, changed by a function of its content."""
    content = copy.deepcopy(good.content)
    if change:
        change(content)
    path = good.root / name
    path.write_text(json.dumps(content))
    return path


def check(good, evaluator=None, **dataset):
    cfg = good.config(**dataset)
    if evaluator is not None:
        cfg.val_evaluator = evaluator
    return check_config(cfg, ("val",))


def coco(path, **kwargs):
    return dict(type="CocoMetric", ann_file=str(path), **kwargs)


def renumber(content, by=100):
    for image in content["images"]:
        image["id"] += by
    for annotation in content["annotations"]:
        annotation["image_id"] += by


def move_box(content):
    content["annotations"][1]["bbox"] = [6, 5, 10, 10]


def other_class(content):
    content["annotations"][1]["category_id"] = 1


# --- the same images -------------------------------------------------------------------------


def test_a_copy_of_the_file_passes(good):
    assert check(good, coco(other(good))) == []


def test_a_link_to_the_file_is_the_file(good):
    link = good.root / "link.json"
    link.symlink_to(good.file)
    assert check(good, coco(link)) == []


@pytest.mark.parametrize(
    "kind", ["CocoMetric", "mmdet.CocoMetric", CocoMetric, MisalignmentMetric, VisDroneMetric]
)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (renumber, "lacks images of .*: 4 image ids \\(0, 1, 2, 3\\)"),
        (
            lambda c: c["images"].append({**c["images"][0], "id": 9}),
            "has images that are not in .*9",
        ),
        (lambda c: c["images"][2].update(file_name="x.jpg"), "gives the ids to other .*\\(2\\)"),
    ],
)
def test_other_images_are_an_error(good, kind, change, what):
    evaluator = {"type": kind, "ann_file": str(other(good, change))}
    with pytest.raises(InputError, match=f"{KEY}: .*other.json {what}.*val_evaluator.ann_file"):
        check(good, evaluator)


def test_a_metric_of_visdrone_needs_the_sizes_of_the_images(good):
    def change(content):
        del content["images"][1]["width"]

    assert check(good, dict(type="VisDroneMetric", ann_file=str(other(good)))) == []
    with pytest.raises(InputError, match="other.json: 1 of 4 images lack the key 'width'"):
        check(good, dict(type="VisDroneMetric", ann_file=str(other(good, change))))


def test_the_folder_and_the_format_of_a_picture_do_not_matter(good):
    path = other(good, lambda c: [i.update(file_name=f"val/{i['id']}.png") for i in c["images"]])
    assert check(good, coco(path)) == []


@pytest.mark.parametrize("change", [move_box, other_class, lambda c: c["annotations"].pop(1)])
def test_other_boxes_are_a_note(good, change):
    notes = check(good, coco(other(good, change)))
    assert len(notes) == 1 and not isinstance(notes[0], Remark)
    assert f"{KEY}: {good.root}/other.json is another file than {good.file}" in notes[0]
    assert "the boxes of 1 of 4 images differ (1.jpg)" in notes[0]


def test_category_ids_and_order_of_boxes_do_not_matter(good):
    def change(content):
        for part, key in (("categories", "id"), ("annotations", "category_id")):
            for entry in content[part]:
                entry[key] += 7
        content["annotations"].reverse()

    assert check(good, coco(other(good, change))) == []


def test_classes_in_another_order_are_an_error(good):
    path = other(good, lambda c: c["categories"].reverse())
    with pytest.raises(InputError, match=f"{KEY}: .*lists the classes in another order"):
        check(good, coco(path))


def test_every_metric_of_a_list_is_looked_at(good):
    path = other(good, renumber)
    with pytest.raises(InputError, match=f"{KEY}.1: .*lacks images"):
        check(good, [coco(good.file), coco(path)])
    with pytest.raises(InputError, match=f"{KEY}.metrics.1: .*lacks images"):
        check(good, dict(metrics=[coco(good.file), coco(path)]))


def test_what_needs_no_file_or_another_format_is_left_alone(good, tmp_path):
    assert check(good, dict(type="CocoMetric", metric="bbox")) == []
    assert check(good, dict(type="VOCMetric", metric="mAP")) == []
    text = tmp_path / "own.txt"
    text.write_text("not COCO")
    assert check(good, dict(type="OpenImagesMetric", ann_file=str(text))) == []
    with pytest.raises(InputError, match="there is no annotation file .*none.txt"):
        check(good, dict(type="OpenImagesMetric", ann_file=str(tmp_path / "none.txt")))


@pytest.mark.parametrize(
    "extra",
    [
        {"ann_file": "s3://bucket/v.json"},
        {"ann_file": "v.json", "backend_args": {"backend": "petrel"}},
    ],
)
def test_remote_files_are_not_compared(good, extra):
    notes = check(good, dict(type="CocoMetric", **extra))
    assert notes == [f"{KEY}: {extra['ann_file']} is on remote storage and was not checked."]


def test_format_only_needs_images_and_classes_but_no_annotations(good):
    only = dict(format_only=True, outfile_prefix="x")

    def strip(content):
        del content["annotations"]

    assert check(good, coco(other(good, strip), **only)) == []
    assert check(good, coco(other(good, move_box), **only)) == []
    with pytest.raises(InputError, match="lacks images"):
        check(good, coco(other(good, renumber), **only))


# --- several datasets ------------------------------------------------------------------------


@pytest.fixture
def halves(good):
    """Two files of two images each, and the config of their ConcatDataset."""
    parts = []
    for number in (0, 1):

        def half(content, number=number):
            content["images"] = content["images"][2 * number : 2 * number + 2]
            content["annotations"] = content["annotations"][2 * number : 2 * number + 2]

        other(good, half, f"{number}.json")
        parts.append(good.dataset(load="LoadImageFromFile", ann_file=f"{number}.json"))
    cfg = good.config()
    cfg.val_dataloader.dataset = dict(type="ConcatDataset", datasets=parts)
    return cfg


def test_an_evaluator_on_the_merged_file(good, halves):
    assert check_config(halves, ("val",)) == []
    halves.val_evaluator.ann_file = str(good.root / "0.json")
    with pytest.raises(InputError, match=r"0.json lacks images of .*2 image ids \(2, 3\)"):
        check_config(halves, ("val",))


def test_an_evaluator_of_each_part(good, halves):
    halves.val_evaluator = dict(
        type="MultiDatasetsEvaluator",
        dataset_prefixes=["a", "b"],
        metrics=[coco(good.root / "0.json"), coco(good.root / "1.json")],
    )
    assert check_config(halves, ("val",)) == []
    halves.val_evaluator.metrics.reverse()
    with pytest.raises(InputError) as error:
        check_config(halves, ("val",))
    assert str(error.value).count("lacks images") == 2


def test_image_ids_that_two_parts_share(good, halves):
    shutil.copy(good.root / "0.json", good.root / "2.json")
    halves.val_dataloader.dataset.datasets[1].ann_file = "2.json"
    with pytest.raises(InputError, match=r"cannot tell the images .* the ids 0, 1 occur"):
        check_config(halves, ("val",))
    halves.val_dataloader.dataset.datasets[1].ann_file = "0.json"
    with pytest.raises(InputError, match=r"the same file is listed more than once"):
        check_config(halves, ("val",))


def test_local_storage_is_checked_and_remote_storage_is_not(good):
    assert is_remote(dict(backend="petrel")) and not is_remote(None)
    assert not is_remote(dict(backend="local")) and not is_remote(dict(backend="disk"))
    local = dict(backend="local")
    assert check(good, backend_args=local) == []
    good.content["annotations"][0]["image_id"] = 77
    with pytest.raises(InputError, match="refer to an image"):
        check(good.write(), backend_args=local)


def test_nothing_is_compared_where_a_dataset_has_another_format(good, halves):
    halves.val_dataloader.dataset.datasets[1].type = "LVISV1Dataset"
    halves.val_evaluator.ann_file = str(good.root / "0.json")
    assert check_config(halves, ("val",)) == []


def test_a_part_of_the_images_with_an_evaluator_of_all(good):
    notes = check(good, indices=2)
    assert len(notes) == 1 and "val_dataloader.dataset: indices=2" in notes[0]
    assert "their objects count as missed in AP" in notes[0]
    assert len(DATASETS.build(good.dataset(indices=2))) == 2


# --- what pycocotools reads ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [CocoMetric, "CocoMetric", "mmdet.CocoMetric"])
@pytest.mark.parametrize("value", ["absent", None])
def test_annotations_without_iscrowd(good, kind, value):
    for annotation in good.content["annotations"][1:3]:
        del annotation["iscrowd"]
        if value is None:
            annotation["iscrowd"] = None
    good.write()
    assert good.notes(("train",)) == [], "training does not need it"
    evaluator = dict(type=kind, ann_file=str(good.file))
    with pytest.raises(InputError, match=f"{KEY}: .*2 of 4 annotations lack the key 'iscrowd'.*11"):
        check(good, evaluator)
    only = dict(type="CocoMetric", ann_file=str(good.file), format_only=True, outfile_prefix="x")
    assert check(good, only) == []
    # This package's own metric needs neither the key ...
    evaluator["type"] = MisalignmentMetric
    assert check(good, evaluator) == []
    metric = MisalignmentMetric(str(good.file))
    metric.dataset_meta = dict(classes=CLASSES)
    for annotation in good.content["annotations"]:  # one an image, found by a perfect detector
        found = dict(bboxes=np.array([[5.0, 5, 15, 15]]), scores=np.array([0.9]),
                     labels=np.array([annotation["category_id"] - 1]))  # fmt: skip
        metric.process({}, [dict(img_id=annotation["image_id"], pred_instances=found)])
    assert metric.evaluate(4)["misalignment/AP"] == 1  # ... to be right


def test_annotation_id_0_is_never_found_by_pycocotools(good):
    good.content["annotations"][0]["id"] = 0
    good.write()
    assert good.notes(("train",)) == []
    notes = check(good)
    assert len(notes) == 1 and f"{KEY}: {good.file} has an annotation with id 0" in notes[0]
    assert "AP will be too low" in notes[0] and "from 1" in notes[0]
    assert not isinstance(notes[0], Remark)
    assert check(good, dict(type=MisalignmentMetric, ann_file=str(good.file))) == []


@pytest.mark.parametrize(("number", "fits"), [("12", True), ("a12", False)])
def test_annotation_ids_that_are_strings(good, number, fits):
    good.content["annotations"][0]["id"] = number
    good.write()
    assert good.notes(("train",)) == []
    if fits:
        assert check(good) == []
    else:
        with pytest.raises(InputError, match="1 of 4 annotations have an id .* not a number.*a12"):
            check(good)


def as_text(content, count):
    for image in content["images"][:count]:
        image["id"] = str(image["id"])
    for annotation in content["annotations"][:count]:
        annotation["image_id"] = str(annotation["image_id"])


def test_image_ids_that_are_strings(good):
    as_text(good.content, 4)
    assert check(good.write()) == []


def test_image_ids_of_two_kinds(good):
    as_text(good.content, 2)
    good.write()
    assert good.notes(("train",)) == []
    with pytest.raises(InputError, match="some image ids are numbers, others strings such as '0'"):
        check(good)


def test_metrics_of_every_form():
    one = dict(type="CocoMetric")
    assert list(metrics(None, KEY)) == list(metrics({}, KEY)) == []
    assert list(metrics(one, KEY)) == [(KEY, one, None)]
    assert list(metrics((one,), KEY)) == [(f"{KEY}.0", one, None)]
    assert list(metrics(dict(metrics=one), KEY)) == [(f"{KEY}.metrics.0", one, None)]
    apart = dict(type="MultiDatasetsEvaluator", metrics=[one, one])
    assert [n for _, _, n in metrics(apart, KEY)] == [0, 1]


def test_annotations_are_needed_unless_every_metric_only_writes_a_file():
    only, one = dict(type="CocoMetric", format_only=True), dict(type="CocoMetric")
    assert needs_annotations(None) and needs_annotations(one) and needs_annotations([only, one])
    assert not needs_annotations(only) and not needs_annotations([only, only])


def test_a_dataset_at_fault_is_not_held_against_the_evaluator(good, halves):
    (good.root / "1.json").write_text("{")
    with pytest.raises(InputError) as error:
        check_config(halves, ("val",))
    assert "datasets.1: " in str(error.value) and KEY not in str(error.value)


def test_validation_images_without_loaded_annotations_are_compared_too(good):
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadEmptyAnnotations"}]
    cfg = good.config()
    cfg.val_dataloader.dataset.pipeline = pipeline
    cfg.val_evaluator = coco(other(good, renumber))
    with pytest.raises(InputError, match="lacks images"):
        check_config(cfg, ("val",))
