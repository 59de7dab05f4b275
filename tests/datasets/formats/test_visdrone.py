"""VisDrone's text files: ignored regions, others, objects that do not count."""

import importlib.util
import json

import pytest
from helpers.data_folders import write_image, write_text
from helpers.paths import CONFIGS, TOOLS
from mmdet.registry import DATASETS
from mmengine.config import Config

from misalign_det.datasets.formats.records import Counts
from misalign_det.datasets.formats.visdrone import CLASSES, read_visdrone
from misalign_det.datasets.preflight import check_config
from misalign_det.errors import InputError

# x, y, w, h, score, category, truncation, occlusion
LINES = """\
10,10,20,10,1,4,1,2
100,50,60,40,0,0,0,0,
110,60,20,20,1,1,0,0
150,60,20,20,1,2,0,0
20,80,10,10,0,5,0,0
30,80,10,10,1,11,0,0
5,5,0,4,1,4,0,0
5,5,9,4,1,12,0,0
"""


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        folder = tmp_path / f"VisDrone2019-DET-{split}"
        for name in ("0001", "0002"):
            write_image(folder / f"images/{name}.jpg", size=(200, 100))
        write_text(folder / "annotations/0001.txt", LINES)
        write_text(folder / "annotations/0002.txt", "")
        write_text(folder / "annotations/0003.txt", LINES)
    return tmp_path


def test_what_counts_and_what_is_ignored(root):
    counts = Counts()
    found = read_visdrone(str(root), counts)
    assert list(found) == ["train", "val"]
    first, second = found["train"]["images"]
    assert first["file_name"] == "VisDrone2019-DET-train/images/0001.jpg"
    assert first["ignored_regions"] == [[100, 50, 60, 40]] and second["ignored_regions"] == []
    boxes = found["train"]["annotations"]
    names = {category["id"]: category["name"] for category in found["train"]["categories"]}
    assert tuple(names.values()) == CLASSES
    objects = [box for box in boxes if not box["iscrowd"]]
    assert [(names[b["category_id"]], b["bbox"]) for b in objects] == [
        ("car", [10, 10, 20, 10]),
    ]  # of the other two, a half or more is in the ignored region
    assert (objects[0]["truncation"], objects[0]["occlusion"]) == (1, 2)
    crowds = [(names[b["category_id"]], b["bbox"]) for b in boxes if b["iscrowd"]]
    assert crowds == [
        ("van", [20, 80, 10, 10]),
        *((name, [100, 50, 60, 40]) for name in CLASSES),
    ]
    assert counts.number == {
        "objects of the category others": 2,
        "objects in ignored regions": 4,
        "boxes without area": 2,
        "unreadable boxes": 2,
        "missing images": 2,
    }


def test_an_image_without_a_text_is_counted(root):
    write_image(root / "VisDrone2019-DET-val/images/0004.jpg")
    counts = Counts()
    found = read_visdrone(str(root), counts)
    assert len(found["val"]["images"]) == 2
    assert counts.number["images without an annotation file"] == 1
    assert counts.of_split("val").first["images without an annotation file"].endswith("0004.jpg")


def test_the_tool_and_the_config(root, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location(
        "visdrone_tool", TOOLS / "dataset_converters/visdrone.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main([str(root)])
    said = capsys.readouterr().out
    assert "instances_val.json: 2 images, 1 objects" in said and "4 objects in ignored" in said
    assert len(json.loads((root / "annotations/instances_train.json").read_text())["images"]) == 2
    monkeypatch.setenv("MISALIGN_DET_VISDRONE", str(root))
    cfg = Config.fromfile(CONFIGS / "jla_triplehead_r50_fpn_1x_visdrone.py")
    notes = check_config(cfg, modes=("train", "val", "test"))
    assert any("11 of 12 boxes are iscrowd" in note for note in notes)
    cfg.test_evaluator.type = "VisDroneMetric"
    check_config(cfg, modes=("test",))
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, "pipeline": [], "filter_cfg": None})
    flags = [item["ignore_flag"] for item in dataset.get_data_info(0)["instances"]]
    assert flags == [0] + [1] * 11


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(InputError, match="none of the folders VisDrone2019-DET-train"):
        read_visdrone(str(tmp_path), Counts())
    write_image(tmp_path / "VisDrone2019-DET-val/images/1.jpg")
    with pytest.raises(InputError, match=r"VisDrone2019-DET-val has no annotations/\*.txt"):
        read_visdrone(str(tmp_path), Counts())
