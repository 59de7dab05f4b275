"""--data in configs of this package and of mmdet: datasets, evaluators, num_classes, options."""

import argparse
from pathlib import Path

import pytest
from helpers.data_folders import write_folder
from helpers.paths import CONFIGS, MMDET_CONFIGS
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from misalign_det.apis.cli import add_common_arguments, add_preflight_argument, load_config
from misalign_det.datasets.preflight import check_config
from misalign_det.errors import InputError
from misalign_det.utils import leaf_datasets, walk


@pytest.fixture
def load(tmp_path):
    """Load a config with --data and further words."""

    def load(config, kind="VOC", *words, training=True, **kwargs):
        root = tmp_path / "set"
        if not root.exists():
            write_folder(root, kind)
        parser = argparse.ArgumentParser()
        parser.add_argument("config")
        add_common_arguments(parser)
        add_preflight_argument(parser)
        run = ["--work-dir", str(tmp_path / "run")]
        args = parser.parse_args([str(config), "--data", str(root), *run, *words])
        for name, value in kwargs.items():
            setattr(args, name, value)
        return load_config(args, training)

    return load


def num_classes(cfg):
    return {key: part for key, part in walk(cfg.model) if key.endswith("num_classes")}


STOCK = {
    "retinanet/retinanet_r50_fpn_1x_coco.py": {"bbox_head.num_classes"},
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": {"roi_head.bbox_head.num_classes"},
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py": {
        f"roi_head.bbox_head.{i}.num_classes" for i in range(3)
    },
    "pascal_voc/retinanet_r50_fpn_1x_voc0712.py": {"bbox_head.num_classes"},
    "yolox/yolox_s_8xb8-300e_coco.py": {"bbox_head.num_classes"},
    "detr/detr_r50_8xb2-150e_coco.py": {"bbox_head.num_classes"},
}


@pytest.mark.parametrize("config", STOCK)
def test_stock_configs_of_mmdet(load, config):
    cfg = load(MMDET_CONFIGS / config)
    assert num_classes(cfg) == dict.fromkeys(STOCK[config], 2)
    register_all_modules()
    MODELS.build({**cfg.model, "backbone": {**cfg.model.backbone, "init_cfg": None}})
    check_config(cfg, modes=("train", "val", "test"))
    for split, number in (("train", 3), ("val", 2), ("test", 1)):
        ((_, leaf),) = leaf_datasets(cfg[f"{split}_dataloader"].dataset)
        dataset = DATASETS.build({**leaf, "filter_cfg": None, "pipeline": []})
        assert len(dataset) == number and dataset.metainfo["classes"] == ("bolt", "nut")


@pytest.mark.parametrize(
    "config", ["misalign_effnet-lite0_fpn_12e_bccd", "jla_triplehead_r50_fpn_45k_voc0712"]
)
def test_configs_of_this_package(load, config):
    before, cfg = Config.fromfile(str(CONFIGS / f"{config}.py")), load(config, "YOLO")
    assert set(num_classes(cfg).values()) == {2}
    assert check_config(cfg, modes=("train", "val", "test"))  # notes that "e" has no objects
    for split in ("train", "val", "test"):
        old, new = before[f"{split}_dataloader"], cfg[f"{split}_dataloader"]
        (_, first), *_ = leaf_datasets(old.dataset)
        ((_, leaf),) = leaf_datasets(new.dataset)
        assert leaf.pipeline == first.pipeline and new.batch_size == old.batch_size
        assert leaf.get("test_mode") == first.get("test_mode")
    for split in ("val", "test"):
        metric = cfg[f"{split}_evaluator"]
        assert metric.type == before[f"{split}_evaluator"].type
        if "ann_file" in metric:
            assert metric.ann_file == cfg[f"{split}_dataloader"].dataset.ann_file
            METRICS.build(metric)


def test_wrappers_stay_and_joined_datasets_become_one(load):
    cfg = load(MMDET_CONFIGS / "pascal_voc/retinanet_r50_fpn_1x_voc0712.py")
    assert cfg.train_dataloader.dataset.type == "RepeatDataset"
    assert cfg.train_dataloader.dataset.times == 3
    assert cfg.train_dataloader.dataset.dataset.type == "CocoDataset"


def test_the_run_saves_what_was_filled_in(load, tmp_path):
    cfg = load("misalign_effnet-lite0_fpn_12e_bccd")
    path = tmp_path / "config.py"
    cfg.dump(str(path))
    again = Config.fromfile(str(path))
    assert again.model.bbox_head.num_classes == 2 and again.data_root == f"{tmp_path / 'set'}/"
    assert again.train_dataloader.dataset.metainfo == dict(classes=("bolt", "nut"))
    assert again.metainfo == dict(classes=("bolt", "nut"))
    # The dumped config is a config like any other: its data can be replaced again.
    assert load(path).train_dataloader == cfg.train_dataloader


def test_options_win(load):
    words = ["model.bbox_head.num_classes=7", "val_evaluator.metric=proposal", "val_dataloader."
             "dataset.ann_file=mine.json", "train_dataloader.batch_size=1"]  # fmt: skip
    cfg = load("misalign_effnet-lite0_fpn_12e_bccd", "VOC", "--cfg-options", *words)
    assert cfg.model.bbox_head.num_classes == 7 and cfg.val_evaluator.metric == "proposal"
    assert cfg.val_dataloader.dataset.ann_file == "mine.json"
    assert cfg.train_dataloader.batch_size == 1
    with pytest.raises(InputError, match="num_classes is 7, but .* has 2 classes"):
        check_config(cfg, modes=("train",))


def test_data_root_contradicts(load):
    with pytest.raises(InputError, match="both name the data. Give one"):
        load("misalign_effnet-lite0_fpn_12e_bccd", "VOC", "--cfg-options", "data_root=/elsewhere")


def test_the_work_dir_of_an_option(load, tmp_path):
    words = ["--cfg-options", f"work_dir={tmp_path / 'b'}"]
    cfg = load("misalign_effnet-lite0_fpn_12e_bccd", "VOC", *words, work_dir=None)
    assert cfg.work_dir == str(tmp_path / "b")
    assert Path(cfg.val_evaluator.ann_file).is_relative_to(tmp_path / "b/data")


def test_the_configs_own_order_of_the_same_classes(load, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        f"_base_ = '{CONFIGS / 'misalign_effnet-lite0_fpn_12e_bccd.py'}'\n"
        "train_dataloader = dict(dataset=dict(metainfo=dict(classes=('nut', 'bolt'))))\n"
    )
    assert load(path).val_dataloader.dataset.metainfo.classes == ("nut", "bolt")
    assert load("misalign_effnet-lite0_fpn_12e_bccd").metainfo.classes == ("bolt", "nut")


def test_a_folder_of_test_images(load, tmp_path):
    write_folder(tmp_path / "set", "COCO")
    for split in ("train", "val"):
        (tmp_path / f"set/annotations/instances_{split}.json").unlink()
    cfg = load("misalign_effnet-lite0_fpn_12e_bccd", training=False)
    assert len(check_config(cfg, modes=("test",))) == 0
    with pytest.raises(InputError, match="no training images: its only splits are test and val"):
        load("misalign_effnet-lite0_fpn_12e_bccd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val_evaluator = dict(_delete_=True, type='CityScapesMetric')", "val_evaluator is City"),
        ("part = _base_.train_dataloader.dataset\ntrain_dataloader = dict(dataset=dict("
         "_delete_=True, type='ConcatDataset', datasets=[part, dict(part, pipeline=[])]))",
         r"parts of train_dataloader.dataset differ in more than their files \(ConcatDataset\)"),
        ("train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadAnnotations', "
         "with_bbox=True, with_mask=True)]))", "loads masks, and the annotations .* are boxes"),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_filled(load, tmp_path, text, message):
    path = tmp_path / "own.py"
    path.write_text(f"_base_ = '{CONFIGS / 'misalign_effnet-lite0_fpn_12e_bccd.py'}'\n{text}\n")
    with pytest.raises(InputError, match=message):
        load(path)


def test_many_classes_have_a_colour_each(load, tmp_path):
    root = write_folder(tmp_path / "set", "YOLO")
    names = [f"class {i}" for i in range(100)]
    (root / "classes.txt").write_text("\n".join(names))
    cfg = load("misalign_effnet-lite0_fpn_12e_bccd")
    assert len(cfg.train_dataloader.dataset.metainfo.palette) == 100
    assert cfg.model.bbox_head.num_classes == 100


def test_num_classes_of_losses_and_of_heads_that_leave_it_out(load, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        f"_base_ = '{MMDET_CONFIGS / 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'}'\n"
        "model = dict(rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=dict(_delete_=True, "
        "type='Shared2FCBBoxHead', in_channels=256, "
        "loss_cls=dict(type='SeesawLoss', num_classes=80))))\n"
    )
    assert num_classes(load(path)) == {
        "rpn_head.num_classes": 1,
        "roi_head.bbox_head.num_classes": 2,
        "roi_head.bbox_head.loss_cls.num_classes": 2,
    }
