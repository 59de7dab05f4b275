"""`--cfg-options data_root=...` and the environment variables move every path of a data config."""

from pathlib import Path

import pytest
from mmengine.config import Config

from misalign_det.engine.annotation_checks import InputError
from misalign_det.engine.data_root import merge_options

BASES = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "datasets"
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
    cfg = merge_options(load("bccd"), {
        "data_root": "/elsewhere", "test_evaluator.ann_file": "mine.json",
        "train_dataloader.batch_size": 4})
    assert cfg.test_evaluator.ann_file == "mine.json"
    assert cfg.val_evaluator.ann_file == "/elsewhere/annotations/instances_val.json"
    assert cfg.train_dataloader.batch_size == 4


def test_a_folder_whose_name_only_starts_alike_stays():
    cfg = Config({"data_root": "data/coco", "a": "data/coco_mini/x", "b": ["data/coco/x"]})
    merge_options(cfg, {"data_root": "/new"})
    assert cfg.a == "data/coco_mini/x"
    assert cfg.b == ["/new/x"]


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
