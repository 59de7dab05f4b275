"""Bad input: what the user sees. Each test spoils one thing of a good set of four images."""

import json
import logging
import re
from pathlib import Path

import mmdet
import pytest
from coco_set import CLASSES, CocoSet
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from misalign_det.engine import preflight
from misalign_det.engine.annotation_checks import Remark
from misalign_det.engine.preflight import InputError, check_config

register_all_modules()

WHERE = "train_dataloader.dataset"
MMDET = Path(mmdet.__file__).parent / ".mim" / "configs"


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


def test_a_good_set_passes_without_a_word(good):
    assert good.notes(("train", "val", "test")) == []


# --- the annotation file ---------------------------------------------------------------------


def test_missing_annotation_file(good):
    good.file.unlink()
    said = good.fault(("train", "val"))
    assert f"{WHERE}: there is no annotation file {good.file}" in said
    assert "--cfg-options data_root=FOLDER" in said
    assert "val_dataloader.dataset: there is no" in said, "all datasets are named, not the first"
    assert "val_evaluator: there is no annotation file" in said


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


@pytest.mark.parametrize(("part", "key"), [
    ("images", "file_name"), ("images", "width"), ("annotations", "bbox"), ("annotations", "area"),
    ("annotations", "category_id"), ("categories", "name")])
def test_entry_without_a_key(good, part, key):
    del good.content[part][1][key]
    good.write()
    count = len(good.content[part])
    assert f"1 of {count} {part} lack the key {key!r} (first: number 1 of the list)" in good.fault()


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
    assert f"1 of 4 annotations point to a {part} that the file does not list ({key} 77;" in said
    assert "annotation ids 12" in said


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "4"], None, [0, 0, float("inf"), 5],
                                 [float("nan"), 0, 5, 5]])
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
    assert "has the category 'owl' (1 boxes), which is no class of the dataset" in said
    assert "The file has: cat, dog, fox, owl. The dataset's metainfo has: cat, dog, fox." in said
    assert f"Set {WHERE}.metainfo.classes=('cat', 'dog', 'fox', 'owl',)" in said
    assert "num_classes to 4" in said and "preflight.extra_categories=skip" in said


def test_category_that_the_metainfo_lacks_can_be_left_out(good):
    good.content["categories"].append({"id": 9, "name": "owl"})
    good.content["annotations"][0]["category_id"] = 9
    cfg = good.write().config()
    cfg.preflight = {"extra_categories": "skip"}
    notes = check_config(cfg, ("train",))
    assert any("category 'owl' (1 boxes) is no class of the dataset and is left out" in n
               for n in notes)
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


def test_head_with_another_number_of_classes(good):
    said = good.fault(("train", "val"), num_classes=80)
    assert f"model.bbox_head.num_classes is 80, but {WHERE} has 3 classes (cat, dog, fox)" in said
    assert "--cfg-options model.bbox_head.num_classes=3" in said


def test_two_stage_heads_are_looked_at_too(good):
    cfg = good.config()
    cfg.model = {"type": "CascadeRCNN", "rpn_head": {"num_classes": 1},
                 "roi_head": {"bbox_head": [{"num_classes": 3}, {"num_classes": 80}]}}
    with pytest.raises(InputError, match=re.escape("model.roi_head.bbox_head.1.num_classes is 80")):
        check_config(cfg, ("train",))


# --- boxes -----------------------------------------------------------------------------------


def test_boxes_without_area_or_outside_are_counted_and_mmdet_skips_just_those(good):
    first = good.content["annotations"][0]
    for number, box in enumerate([
            [5, 5, 0, 10], [5, 5, 10, 0.5],  # no area
            [70, 5, 10, 10], [-20, 5, 10, 10],  # outside 64 x 48
            [60, 40, 10, 10], [-3, 0, 10, 10]]):  # over the border
        good.content["annotations"].append({**first, "id": 100 + number, "bbox": box})
    good.content["annotations"].append({**first, "id": 106, "area": 0})
    notes = good.write().notes()
    assert len(notes) == 3
    assert "3 of 11 boxes have no area" in notes[0] and "skipped" in notes[0]
    assert "ids 100, 101, 106" in notes[0]
    assert "2 of 11 boxes lie outside their image and are skipped" in notes[1]
    assert "ids 102, 103" in notes[1]
    assert "2 of 11 boxes reach over the border of their image and are clipped" in notes[2]
    data = DATASETS.build(good.dataset())
    assert sum(len(data.get_data_info(i)["instances"]) for i in range(4)) == 11 - 3 - 2


def test_notes_are_logged_as_warnings_where_something_is_left_out(good, monkeypatch):
    lines = []
    monkeypatch.setattr(
        preflight, "print_log", lambda text, logger, level: lines.append((level, text)))
    good.content["annotations"][0]["bbox"] = [5, 5, 0, 10]
    notes = good.write().notes()
    assert [text for _, text in lines] == notes
    assert [level for level, _ in lines] == [logging.WARNING, logging.INFO]
    assert "no area" in notes[0] and "kept as background" in notes[1]


@pytest.mark.parametrize(("keep", "fate"), [
    (False, "are kept as background"), (True, "are left out (filter_empty_gt=True)")])
def test_images_without_objects_are_counted(good, keep, fate):
    del good.content["annotations"][1:3]
    settings = {"filter_empty_gt": keep, "min_size": 32}
    notes = good.write().notes(filter_cfg=settings)
    assert notes == [f"{WHERE}: 2 of 4 images have no objects and {fate}: 1.jpg, 2.jpg."]
    assert len(DATASETS.build(good.dataset(filter_cfg=settings))) == (2 if keep else 4)


def test_no_usable_box_at_all(good):
    for annotation in good.content["annotations"]:
        annotation["bbox"] = [5, 5, 0, 0]
    good.write()
    said = good.fault()
    assert "has nothing to train on" in said and "4 of 4 boxes have no area" in said


def test_all_images_too_small(good):
    said = good.fault(filter_cfg={"min_size": 100})
    assert "has nothing to train on" in said
    assert "4 of 4 images have a side below min_size=100" in said


# --- wrappers, ranks -------------------------------------------------------------------------


def test_datasets_inside_wrappers_are_found(good, tmp_path):
    cfg = good.config()
    bad = good.dataset(ann_file="none.json")
    cfg.train_dataloader.dataset = {
        "type": "RepeatDataset", "times": 3,
        "dataset": {"type": "ConcatDataset", "datasets": [good.dataset(), bad]}}
    with pytest.raises(InputError) as caught:
        check_config(cfg, ("train",))
    assert f"{WHERE}.dataset.datasets.1: there is no annotation file" in str(caught.value)


def test_other_ranks_leave_it_to_the_first(good, monkeypatch):
    good.file.unlink()
    monkeypatch.setenv("RANK", "1")
    assert good.notes() == []
    monkeypatch.setenv("RANK", "0")
    assert "no annotation file" in good.fault()


def test_test_images_without_annotations(good):
    del good.content["annotations"]
    cfg = good.write().config()
    cfg.test_evaluator.format_only = True
    assert check_config(cfg, ("test",)) == []
    assert "annotations" in good.fault(("val",))


# --- parts of a training set -----------------------------------------------------------------


def concat(good, *parts):
    """The training config with a ConcatDataset of the set and further datasets."""
    cfg = good.config()
    datasets = [good.dataset(), *parts]
    cfg.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": datasets}
    return cfg


def without(good, *keys):
    """Another file, without the values of these keys."""
    content = {key: [] if key in keys else value for key, value in good.content.items()}
    path = good.root / "part.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("missing", [True, False])
def test_a_part_without_annotations_is_background(good, missing):
    path = without(good, "annotations")
    if missing:
        content = json.loads(path.read_text())
        del content["annotations"]
        path.write_text(json.dumps(content))
    notes = check_config(concat(good, good.dataset(ann_file="part.json")), ("train",))
    assert notes == [f"{WHERE}.datasets.1: 4 of 4 images have no objects and are kept as "
                     "background: 0.jpg, 1.jpg, 2.jpg, ... (4 in all)."]
    assert isinstance(notes[0], Remark)
    with pytest.raises(InputError, match="nothing to train on|no list of objects 'annotations'"):
        check_config(good.config(ann_file="part.json"), ("train",))


def test_parts_that_all_have_nothing(good):
    without(good, "annotations")
    empty = good.dataset(ann_file="part.json")
    cfg = good.config()
    cfg.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [empty, empty]}
    with pytest.raises(InputError) as error:
        check_config(cfg, ("train",))
    assert str(error.value).startswith(
        f"{WHERE}: {good.root}/part.json, {good.root}/part.json has nothing to train on.")
    assert "4 of 4 images have no objects" in str(error.value)


def unlabelled(good, **kwargs):
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadEmptyAnnotations"},
                {"type": "MultiBranch", "branch_field": ["a"], "a": []}]
    return good.dataset(pipeline=pipeline, **kwargs)


def test_unlabelled_images_of_semi_supervised_training(good):
    cfg = concat(good, unlabelled(good))
    cfg.train_dataloader.dataset.datasets[0].pipeline[2:] = [
        {"type": "MultiBranch", "branch_field": ["a"], "a": {"type": "PackDetInputs"}}]
    detector = cfg.model
    cfg.model = {"type": "SemiBaseDetector", "detector": detector}
    assert check_config(cfg, ("train",)) == [
        f"{WHERE}.datasets.1: the 4 images of {good.file} are unlabelled (LoadEmptyAnnotations)."]
    cfg.model.detector.bbox_head.num_classes = 4
    with pytest.raises(InputError, match=r"model\.detector\.bbox_head\.num_classes is 4, but"):
        check_config(cfg, ("train",))


def test_unlabelled_images_need_no_classes_of_the_dataset(good):
    good.content["categories"] = [{"id": 1, "name": "other"}]
    without(good, "annotations")
    good.content["categories"] = [{"id": i + 1, "name": n} for i, n in enumerate(CLASSES)]
    cfg = concat(good, unlabelled(good, ann_file="part.json"))
    assert len(check_config(cfg, ("train",))) == 1


def test_unlabelled_images_alone_are_nothing_to_train_on(good):
    cfg = good.config()
    cfg.train_dataloader.dataset = unlabelled(good)
    with pytest.raises(InputError, match="has nothing to train on"):
        check_config(cfg, ("train",))


def test_a_part_that_is_not_read_may_have_something(good):
    without(good, "annotations")
    cfg = good.config()
    cfg.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [
        good.dataset(ann_file="part.json"), good.dataset(ann_file="s3://bucket/a.json")]}
    notes = check_config(cfg, ("train",))
    assert "s3://bucket/a.json is on remote storage and was not checked" in notes[1]


# --- settings, types, wrappers ---------------------------------------------------------------


def test_preflight_can_be_switched_off(good, monkeypatch):
    lines = []
    monkeypatch.setattr(preflight, "print_log", lambda text, logger: lines.append(text))
    good.file.unlink()
    cfg = good.config()
    cfg.preflight = {"enabled": False}
    assert check_config(cfg) == []
    assert lines == ["The input is not checked: preflight.enabled is False."]
    cfg.preflight = {"enabled": True}
    with pytest.raises(InputError, match="no annotation file"):
        check_config(cfg)


def test_an_unknown_setting_is_refused(good):
    cfg = good.config()
    cfg.preflight = {"extra_categories": "ignore"}
    with pytest.raises(InputError, match="must be 'error' or 'skip', not 'ignore'"):
        check_config(cfg)


@pytest.mark.parametrize("kind", [CocoDataset, "mmdet.CocoDataset"])
def test_types_that_are_classes_or_scoped(good, kind):
    assert good.notes(("train", "val"), type=kind) == []
    good.content["annotations"][0]["image_id"] = 77
    assert "point to a image" in good.write().fault(type=kind)


def test_a_dataset_that_parses_annotations_in_its_own_way_has_its_boxes_left_alone(good):
    class Own(CocoDataset):
        def parse_data_info(self, raw_data_info):
            raise NotImplementedError

    for annotation in good.content["annotations"]:
        annotation["bbox"] = [5, 5, 0, 0]
    assert good.write().notes(type=Own) == []
    assert "nothing to train on" in good.fault()


def test_a_detector_inside_test_time_augmentation(good):
    cfg = good.config(num_classes=80)
    cfg.model = {"type": "DetTTAModel", "module": cfg.model}
    with pytest.raises(InputError, match=r"model\.module\.bbox_head\.num_classes is 80"):
        check_config(cfg, ("test",))


def test_heads_whose_classes_are_words_of_a_text(good):
    assert good.notes(num_classes=256, return_classes=True) == []


def test_val_and_test_alike_are_looked_at_once(good):
    good.content["annotations"][0]["bbox"] = [60, 40, 10, 10]
    notes = good.write().notes(("val", "test"))
    assert len(notes) == 1 and notes[0].startswith("val_dataloader.dataset: 1 of 4 boxes reach")


@pytest.mark.parametrize("data", [
    {"type": "NoSuchDataset", "ann_file": "none.json"}, {"type": "CocoDataset"},
    {"type": "CocoDataset", "ann_file": ""}, {"type": "CocoDataset", "ann_file": "x", "data_root":
     None, "data_prefix": None}, {}, None])
def test_odd_configs_end_in_our_error_or_none(data):
    cfg = Config({"train_dataloader": {"dataset": data}})
    try:
        assert check_config(cfg, ("train",)) == []
    except InputError as error:
        assert "there is no annotation file" in str(error)


@pytest.mark.parametrize("name", [
    "retinanet/retinanet_r50_fpn_1x_coco.py", "lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py",
    "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py",
    "pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
    "openimages/retinanet_r50_fpn_32xb2-1x_openimages.py", "yolox/yolox_tiny_8xb8-300e_coco.py",
    "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
    "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py", "wider_face/ssd300_8xb32-24e_widerface.py"])
def test_mmdets_own_configs_end_in_our_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        check_config(Config.fromfile(MMDET / name), ("train", "val", "test"))
