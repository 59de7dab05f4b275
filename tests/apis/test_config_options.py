"""`--cfg-options data_root=...` and the environment variables move every path of a data config."""

import logging
from pathlib import Path

import pytest
from helpers.paths import CONFIGS
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.runner import Runner

from misalign_det.apis import config_options
from misalign_det.apis.config_options import fit_workers, merge_options
from misalign_det.errors import InputError

BASES = CONFIGS / "_base_/datasets"
DATA = {
    "shapes": ("MISALIGN_DET_SHAPES", "data/shapes"),
    "bccd": ("MISALIGN_DET_BCCD", "data/bccd"),
    "coco": ("MISALIGN_DET_COCO", "data/coco"),
    "voc0712": ("MISALIGN_DET_VOC", "data/VOCdevkit"),
}


def load(name):
    return Config.fromfile(BASES / f"{name}_detection.py")


def paths(value):
    """Every string of a config that is a path below a data root."""
    if isinstance(value, dict):
        return [p for v in value.values() for p in paths(v)]
    if isinstance(value, (list, tuple)):
        return [p for v in value for p in paths(v)]
    return [value] if isinstance(value, str) and ("data/" in value or "/elsewhere" in value) else []


@pytest.fixture(autouse=True)
def no_roots_in_environment(monkeypatch):
    for variable, _ in DATA.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", DATA)
def test_default_root(name):
    found = paths(load(name).to_dict())
    assert len(found) >= 4
    assert all(p.startswith(DATA[name][1] + "/") for p in found)


@pytest.mark.parametrize("name", DATA)
def test_environment_variable_moves_every_path(name, monkeypatch):
    count = len(paths(load(name).to_dict()))
    monkeypatch.setenv(DATA[name][0], "/elsewhere/set")
    found = paths(load(name).to_dict())
    assert len(found) == count
    assert all(p.startswith("/elsewhere/set/") for p in found)


@pytest.mark.parametrize("root", ["/elsewhere/set", "/elsewhere/set/"])
@pytest.mark.parametrize("name", DATA)
def test_data_root_option_moves_every_path(name, root):
    cfg = load(name)
    count = len(paths(cfg.to_dict()))
    merge_options(cfg, {"data_root": root})
    found = paths(cfg.to_dict())
    assert len(found) == count
    assert all(p.startswith("/elsewhere/set/") for p in found)
    assert cfg.data_root == "/elsewhere/set/"


def test_other_options_win_over_the_root():
    cfg = merge_options(
        load("bccd"),
        {
            "data_root": "/elsewhere",
            "test_evaluator.ann_file": "mine.json",
            "train_dataloader.batch_size": 4,
        },
    )
    assert cfg.test_evaluator.ann_file == "mine.json"
    assert cfg.val_evaluator.ann_file == "/elsewhere/annotations/instances_val.json"
    assert cfg.train_dataloader.batch_size == 4


def test_a_folder_whose_name_only_starts_alike_stays():
    cfg = Config(
        {
            "data_root": "data/coco",
            "a": "data/coco_mini/x",
            "b": ["data/coco/x"],
            "c": ("data/coco/x", 1),
        }
    )
    merge_options(cfg, {"data_root": "/new"})
    assert cfg.a == "data/coco_mini/x"
    assert cfg.b == ["/new/x"] and cfg.c == ("/new/x", 1)


def test_doubled_slashes_do_no_harm():
    """A root given as `/a/b/` makes `/a/b//annotations/v.json`."""
    cfg = Config({"data_root": "/a/b//", "ann_file": "/a/b//annotations/v.json"})
    merge_options(cfg, {"data_root": "/new"})
    assert cfg.data_root == "/new/"
    assert cfg.ann_file == "/new/annotations/v.json"


def test_without_options_nothing_changes():
    assert merge_options(load("coco"), None).to_dict() == load("coco").to_dict()


def test_config_without_a_root_says_so():
    with pytest.raises(InputError, match="no top-level data_root"):
        merge_options(Config({"model": {}}), {"data_root": "/new"})


# --- configs whose datasets have roots of their own ------------------------------------------


def own(train="mine/", val="mine/", top="data/shapes/", ann="mine/v.json"):
    """A config that inherits a top-level root and sets the datasets'."""
    cfg = {
        "train_dataloader": {
            "dataset": {
                "type": "RepeatDataset",
                "times": 2,
                "dataset": {"data_root": train, "ann_file": "t.json"},
            }
        },
        "val_dataloader": {"dataset": {"data_root": val, "ann_file": "v.json"}},
        "val_evaluator": {"ann_file": ann},
    }
    return Config({"data_root": top, **cfg} if top else cfg)


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(
        config_options, "print_log", lambda text, logger, level: lines.append((level, text))
    )
    return lines


@pytest.mark.parametrize("top", ["data/shapes/", None])
def test_the_root_that_all_datasets_share_moves(warned, top):
    cfg = merge_options(own(top=top), {"data_root": "/new"})
    assert cfg.train_dataloader.dataset.dataset.data_root == "/new/"
    assert cfg.val_dataloader.dataset.data_root == "/new/"
    assert cfg.val_evaluator.ann_file == "/new/v.json"
    assert cfg.get("data_root") == ("/new/" if top else None)
    assert warned == []


def test_roots_that_differ_are_named():
    with pytest.raises(InputError) as error:
        merge_options(own(val="yours/"), {"data_root": "/new"})
    said = str(error.value)
    assert "data_root=/new would move no path of this config" in said
    assert "its top-level data_root is 'data/shapes'" in said
    assert (
        "train_dataloader.dataset.dataset.data_root=mine/; val_dataloader.dataset.data_root=yours/."
    ) in said
    assert "Set the paths themselves: train_dataloader.dataset.dataset.data_root=..." in said


def test_datasets_without_roots():
    cfg = own(train=None, val="", ann="v.json")
    with pytest.raises(
        InputError,
        match="Its datasets have no data_root. Set the paths "
        "themselves: train_dataloader.dataset.data_root=",
    ):
        merge_options(cfg, {"data_root": "/new"})


def test_what_stays_is_said(warned):
    cfg = merge_options(own(val="data/shapes/sub", ann="x"), {"data_root": "~/new"})
    home = Path.home()
    assert cfg.val_dataloader.dataset.data_root == f"{home}/new/sub"
    assert cfg.train_dataloader.dataset.dataset.data_root == "mine/"
    assert warned == [
        (
            logging.WARNING,
            (
                f"--cfg-options data_root={home}/new moves the paths under data/shapes. "
                "Not moved: train_dataloader.dataset.dataset.data_root=mine/. Options with these "
                "keys move them."
            ),
        )
    ]


def test_an_evaluator_alone_is_a_path_that_moves(warned):
    cfg = merge_options(own(train=None, val=None, ann="data/shapes/v.json"), {"data_root": "/"})
    assert cfg.val_evaluator.ann_file == "/v.json"
    assert warned == []


PURE = """
from mmengine.config import read_base
from mmdet.datasets import CocoDataset
from mmengine.runner import EpochBasedTrainLoop
root = 'mine/'
train_dataloader = dict(dataset=dict(type=CocoDataset, data_root=root, ann_file='t.json'))
val_evaluator = dict(type='CocoMetric', ann_file=root + 'v.json')
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
"""


def test_pure_python_configs(tmp_path):
    path = tmp_path / "pure.py"
    path.write_text(PURE)
    options = {"data_root": "/new", "train_cfg.max_epochs": 3, "train_dataloader.batch_size": 2}
    cfg = merge_options(Config.fromfile(path), options)
    assert cfg.train_dataloader.dataset.data_root == "/new/"
    assert cfg.train_dataloader.dataset.type is CocoDataset
    assert cfg.val_evaluator.ann_file == "/new/v.json"
    assert cfg.train_cfg.max_epochs == 3 and cfg.train_dataloader.batch_size == 2
    with pytest.raises(InputError, match=r"train_cfg \(EpochBasedTrainLoop\) has no 'max_epoch'"):
        merge_options(Config.fromfile(path), {"train_cfg.max_epoch": 3})


def test_no_workers_and_settings_of_workers():
    settings = dict(persistent_workers=True, prefetch_factor=2, timeout=9, batch_size=1)
    cfg = Config(
        dict(
            train_dataloader=dict(settings, num_workers=0),
            val_dataloader=dict(settings, num_workers=1),
            test_dataloader=dict(settings),
        )
    )
    fit_workers(cfg)
    without = dict(persistent_workers=False, prefetch_factor=None, timeout=0, batch_size=1)
    assert cfg.train_dataloader == dict(without, num_workers=0)
    assert cfg.val_dataloader == dict(settings, num_workers=1)
    assert cfg.test_dataloader == without  # torch has no workers by default
    loader = dict(cfg.train_dataloader, sampler=dict(type="DefaultSampler"), dataset=[1])
    assert Runner.build_dataloader(loader).num_workers == 0
    fit_workers(Config(dict(val_dataloader=None)))
