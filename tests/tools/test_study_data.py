"""The data sets of the studies from their public repositories, and the page that describes them."""

import importlib.util
import json
import re
import sys
from collections import Counter

import pytest
from compose import root_variable
from grid import DATA
from helpers.paths import CONFIGS, ROOT, TOOLS
from mmengine.config import Config
from PIL import Image

TOOL = TOOLS / "dataset_converters/study_data.py"
PAGE = (ROOT / "configs/study_data.md").read_text()
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("study_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "study_data", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


class Clone:
    """A repository laid out as a public one, and the splits of it."""

    def __init__(self, tool, folder, monkeypatch, data):
        self.tool, self.data, self.root, self.out = tool, data, folder / "clone", folder / "out"
        self.source = tool.SOURCES[data]
        self.splits = {}
        self.file = folder / "splits.json"
        for name in self.source.folders:
            (self.root / name).mkdir(parents=True)
        monkeypatch.setattr(tool, "SPLITS", self.file)

    def folders(self, split):
        """Of the annotation files and the images; each split of the cards has one for both."""
        first, second = (self.root / folder for folder in self.source.folders)
        if self.data == "cards":
            return (second, second) if split == "test" else (first, first)
        return first, second

    def add(self, split, name, boxes, size=(64, 48), count=None, suffix=".jpg"):
        labels, images = self.folders(split)
        image = Image.new("RGB", size)
        image.putdata([(i % 251, i % 83, i % 7) for i in range(size[0] * size[1])])
        image.save(images / f"{name}{suffix}", quality=95)
        width, height = size
        (labels / f"{name}.xml").write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size>"
            f"{''.join(OBJECT.format(*box) for box in boxes)}</annotation>"
        )
        content = self.splits.setdefault(split, dict(boxes=0, images=[]))
        content["boxes"] += len(boxes) if count is None else count
        content["images"].append(name)
        self.file.write_text(json.dumps({self.data: self.splits}))

    def make(self):
        self.tool.main([self.data, str(self.root), "--out-dir", str(self.out)])

    def split(self, name):
        return json.loads((self.out / f"annotations/instances_{name}.json").read_text())

    def refused(self):
        with pytest.raises(SystemExit) as end:
            self.make()
        assert not list(self.out.glob("annotations/*"))
        return str(end.value)


@pytest.fixture
def clone(tool, tmp_path, monkeypatch):
    def made(data):
        return Clone(tool, tmp_path, monkeypatch, data)

    return made


def test_images_that_are_small_enough_are_copied(clone, capsys):
    bccd = clone("bccd")
    bccd.add("train", "b", [("WBC", 1, 2, 11, 22), ("RBC", 9, 9, 9, 9)], count=1)
    bccd.add("train", "a", [])
    bccd.add("val", "c", [("Platelets", 0, 0, 3, 5), ("RBC", 4, 4, 6, 7)])
    bccd.make()
    assert "instances_train.json: 2 images, 1 boxes" in capsys.readouterr().out
    train, val = bccd.split("train"), bccd.split("val")
    # As listed, not by name; coordinates as they are, and no box without area.
    assert train["images"] == [
        dict(id=1, file_name="b.jpg", width=64, height=48),
        dict(id=2, file_name="a.jpg", width=64, height=48)]  # fmt: skip
    (box,) = train["annotations"]
    assert box == dict(id=1, image_id=1, category_id=2, bbox=[1, 2, 10, 20], area=200, iscrowd=0)
    assert [(box["id"], box["image_id"]) for box in val["annotations"]] == [(2, 3), (3, 3)]
    for name in "abc":
        made = bccd.out / f"VOC2007/JPEGImages/{name}.jpg"
        assert made.read_bytes() == (bccd.root / f"BCCD/JPEGImages/{name}.jpg").read_bytes()


def test_larger_images_are_made_smaller_with_their_boxes(clone):
    cards = clone("cards")
    cards.add("train", "large", [("ten", 100, 50, 400, 350)], size=(960, 540), suffix=".JPG")
    cards.add("test", "tall", [("ace", 10, 20, 30, 60)], size=(30, 90))
    cards.make()
    (image,), (box,) = (cards.split("train")[key] for key in ("images", "annotations"))
    assert image == dict(id=1, file_name="large.jpg", width=640, height=360)
    assert box["bbox"] == [66.67, 33.33, 200, 200] and box["area"] == 40000
    assert box["category_id"] == 6
    with Image.open(cards.out / "images/large.jpg") as made:
        assert made.size == (640, 360) and made.mode == "RGB"
        assert made.quantization[0][0] == 3  # of quality 90
    (box,) = cards.split("test")["annotations"]
    assert box["bbox"] == [10, 20, 20, 40] and box["image_id"] == 2


def test_what_is_wrong_is_said_before_annotations_are_written(clone):
    uav = clone("hit-uav")
    uav.add("train", "a", [("Car", 1, 2, 11, 22)])
    uav.add("val", "b", [("Person", 1, 2, 11, 22)])
    labels, images = uav.folders("val")
    text = (labels / "b.xml").read_text()

    def with_label(changed):
        (labels / "b.xml").write_text(changed)
        return uav.refused()

    assert "class 'DontCare'" in with_label(text.replace("Person", "DontCare"))
    assert "1 x 48; clone again" in with_label(text.replace("<width>64", "<width>1"))
    assert "not in Pascal VOC's format" in with_label(text[:40])
    assert "not in Pascal VOC's format" in with_label(text.replace("<xmin>1", "<xmin>"))
    said = with_label(text.replace("</object>", "</object>" + OBJECT.format("Car", 1, 1, 9, 9)))
    assert "2 boxes in the val split, the studies 1" in said and uav.source.url in said
    (labels / "b.xml").unlink()
    assert "lacks 1 of the 4 files, such as b.xml" in uav.refused()
    (labels / "b.xml").write_text(text)
    (images / "b.jpg").write_text("version https://git-lfs.github.com/spec/v1")
    assert "b.jpg cannot be read" in uav.refused()
    (images / "b.jpg").unlink()
    assert "such as b.jpg: give the folder of a clone of https" in uav.refused()
    uav.root = images
    assert "has no folder normal_xml/Annotations" in uav.refused()


def test_a_data_set_that_is_there_stays(clone):
    uav = clone("hit-uav")
    uav.add("train", "a", [("Car", 1, 2, 11, 22)])
    uav.make()
    before = uav.split("train")
    uav.add("train", "b", [])
    with pytest.raises(SystemExit, match="instances_train.json is there already: remove it"):
        uav.make()
    assert uav.split("train") == before
    uav.out = uav.root / uav.source.folders[1] / "a.jpg"
    with pytest.raises(SystemExit, match="cannot write .*; choose another --out-dir"):
        uav.make()


def test_the_configs_look_where_the_data_sets_are_made(tool, monkeypatch):
    assert {*tool.SOURCES, "shapes"} == set(DATA)
    for name, source in tool.SOURCES.items():
        monkeypatch.delenv(root_variable(name), raising=False)
        cfg = Config.fromfile(CONFIGS / f"_base_/datasets/{name}_detection.py")
        dataset = cfg.train_dataloader.dataset
        assert dataset.metainfo.classes == source.classes
        assert dataset.data_root.rstrip("/") == source.out_dir
        assert dataset.data_prefix.img.rstrip("/") == source.image_dir


def test_the_page_has_the_numbers_of_the_splits(tool):
    splits = json.loads(tool.SPLITS.read_text())
    assert set(splits) == set(tool.SOURCES)
    for name, source in tool.SOURCES.items():
        images = Counter(image for split in splits[name].values() for image in split["images"])
        assert max(images.values()) == 1  # each in one split
        section = re.search(rf"^## `{name}`.*?(?=^## |\Z)", PAGE, re.M | re.S)[0]
        for split, content in splits[name].items():
            assert f"| {split} | {len(content['images'])} | {content['boxes']:,} |" in section
        assert f"]({source.url})" in section and f"`{source.commit[:7]}`" in section
        assert f"export {root_variable(name)}=" in PAGE
        assert f"study_data.py {name} " in PAGE


def test_links_of_the_page_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert link.startswith("https://") or (CONFIGS / link).is_file(), link
    for name in ("README.md", "configs/studies.md", "configs/misalign.md", "tools/README.md"):
        assert "study_data.md)" in (ROOT / name).read_text()
