"""Bad input: what the user sees. Each test spoils one thing of a good set of four images."""

import json
import logging
import re

import pytest
from helpers.coco_set import CLASSES, CocoSet
from helpers.paths import MMDET_CONFIGS
from mmdet.datasets import CocoDataset
from mmdet.utils import register_all_modules
from mmengine.config import Config

from misalign_det.datasets import preflight
from misalign_det.datasets.annotation_checks import Remark
from misalign_det.datasets.preflight import InputError, check_config

register_all_modules()

WHERE = "train_dataloader.dataset"


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


def test_a_good_set_passes_without_a_word(good):
    assert good.notes(("train", "val", "test")) == []


def test_missing_annotation_file(good):
    good.file.unlink()
    said = good.fault(("train", "val"))
    assert f"{WHERE}: there is no annotation file {good.file}" in said
    assert "--cfg-options data_root=FOLDER" in said
    assert "val_dataloader.dataset: there is no" in said, "all datasets are named, not the first"
    assert "val_evaluator: there is no annotation file" in said


# --- heads, log ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "val"])
def test_a_byte_order_mark_with_which_no_dataset_can_be_built(good, mode):
    good.file.write_text(good.file.read_text(), encoding="utf-8-sig")
    with pytest.raises(ValueError, match="BOM"):
        CocoDataset(**{k: v for k, v in good.dataset().items() if k != "type"})
    assert "is in UTF-8 with a byte order mark, which pycocotools does not" in good.fault((mode,))


def test_head_with_another_number_of_classes(good):
    said = good.fault(("train", "val"), num_classes=80)
    assert f"model.bbox_head.num_classes is 80, but {WHERE} has 3 classes (cat, dog, fox)" in said
    assert "--cfg-options model.bbox_head.num_classes=3" in said


def test_two_stage_heads_are_looked_at_too(good):
    cfg = good.config()
    cfg.model = {
        "type": "CascadeRCNN",
        "rpn_head": {"num_classes": 1},
        "roi_head": {"bbox_head": [{"num_classes": 3}, {"num_classes": 80}]},
    }
    with pytest.raises(InputError, match=re.escape("model.roi_head.bbox_head.1.num_classes is 80")):
        check_config(cfg, ("train",))


def test_notes_are_logged_as_warnings_where_something_is_left_out(good, monkeypatch):
    lines = []
    monkeypatch.setattr(
        preflight, "print_log", lambda text, logger, level: lines.append((level, text))
    )
    good.content["annotations"][0]["bbox"] = [5, 5, 0, 10]
    notes = good.write().notes()
    assert [text for _, text in lines] == notes
    assert [level for level, _ in lines] == [logging.WARNING, logging.INFO]
    assert "no area" in notes[0] and "kept as background" in notes[1]


# --- wrappers, ranks -------------------------------------------------------------------------


def test_datasets_inside_wrappers_are_found(good, tmp_path):
    cfg = good.config()
    bad = good.dataset(ann_file="none.json")
    cfg.train_dataloader.dataset = {
        "type": "RepeatDataset",
        "times": 3,
        "dataset": {"type": "ConcatDataset", "datasets": [good.dataset(), bad]},
    }
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
    assert notes == [
        f"{WHERE}.datasets.1: 4 of 4 images have no objects and are kept as "
        "background: 0.jpg, 1.jpg, 2.jpg, ... (4 in all)."
    ]
    assert isinstance(notes[0], Remark)
    said = "no list of objects 'annotations'" if missing else "has no object to train on"
    with pytest.raises(InputError, match=said):
        check_config(good.config(ann_file="part.json"), ("train",))


def test_a_background_part_needs_no_classes_of_the_dataset(good):
    good.content["categories"] = [{"id": 1, "name": "other"}]
    without(good, "annotations")
    notes = check_config(concat(good, good.dataset(ann_file="part.json")), ("train",))
    assert len(notes) == 1 and "kept as background" in notes[0]


def test_parts_that_all_have_nothing(good):
    without(good, "annotations")
    empty = good.dataset(ann_file="part.json")
    cfg = good.config()
    cfg.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [empty, empty]}
    with pytest.raises(InputError) as error:
        check_config(cfg, ("train",))
    assert str(error.value).startswith(
        f"{WHERE}: {good.root}/part.json, {good.root}/part.json has no object to train on."
    )
    assert "4 of 4 images have no objects" in str(error.value)


def unlabelled(good, **kwargs):
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadEmptyAnnotations"},
        {"type": "MultiBranch", "branch_field": ["a"], "a": []},
    ]
    return good.dataset(pipeline=pipeline, **kwargs)


def test_unlabelled_images_of_semi_supervised_training(good):
    cfg = concat(good, unlabelled(good))
    cfg.train_dataloader.dataset.datasets[0].pipeline[2:] = [
        {"type": "MultiBranch", "branch_field": ["a"], "a": {"type": "PackDetInputs"}}
    ]
    detector = cfg.model
    cfg.model = {"type": "SemiBaseDetector", "detector": detector}
    assert check_config(cfg, ("train",)) == [
        f"{WHERE}.datasets.1: the 4 images of {good.file} are unlabelled (LoadEmptyAnnotations)."
    ]
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
    with pytest.raises(InputError, match="has no object to train on"):
        check_config(cfg, ("train",))


def test_a_part_that_is_not_read_may_have_something(good):
    without(good, "annotations")
    cfg = good.config()
    cfg.train_dataloader.dataset = {
        "type": "ConcatDataset",
        "datasets": [
            good.dataset(ann_file="part.json"),
            good.dataset(ann_file="s3://bucket/a.json"),
        ],
    }
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
    assert "refer to an image" in good.write().fault(type=kind)


def test_a_dataset_that_parses_annotations_in_its_own_way_has_its_boxes_left_alone(good):
    class Own(CocoDataset):
        def parse_data_info(self, raw_data_info):
            raise NotImplementedError

    for annotation in good.content["annotations"]:
        annotation["bbox"] = [5, 5, 0, 0]
    assert good.write().notes(type=Own) == []
    assert "no object to train on" in good.fault()


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
    assert len(notes) == 1 and notes[0].startswith("val_dataloader.dataset: 1 of 4 boxes extend")


@pytest.mark.parametrize(
    "data",
    [
        {"type": "NoSuchDataset", "ann_file": "none.json"},
        {"type": "CocoDataset"},
        {"type": "CocoDataset", "ann_file": ""},
        {"type": "CocoDataset", "ann_file": "x", "data_root": None, "data_prefix": None},
        {},
        None,
    ],
)
def test_odd_configs_end_in_our_error_or_none(data):
    cfg = Config({"train_dataloader": {"dataset": data}})
    try:
        assert check_config(cfg, ("train",)) == []
    except InputError as error:
        assert "there is no annotation file" in str(error)


@pytest.mark.parametrize(
    "name",
    [
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        "lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py",
        "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py",
        "pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
        "openimages/retinanet_r50_fpn_32xb2-1x_openimages.py",
        "yolox/yolox_tiny_8xb8-300e_coco.py",
        "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
        "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
        "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
        "wider_face/ssd300_8xb32-24e_widerface.py",
    ],
)
def test_mmdets_own_configs_end_in_our_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        check_config(Config.fromfile(MMDET_CONFIGS / name), ("train", "val", "test"))
