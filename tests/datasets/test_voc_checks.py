"""Bad input in Pascal VOC's format."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from misalign_det.datasets.preflight import InputError, check_config


@pytest.fixture
def voc(tmp_path):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir()
    for name, kind in (("a", "cat"), ("b", "dog")):
        cv2.imwrite(str(tmp_path / f"JPEGImages/{name}.jpg"), np.zeros((48, 64, 3), np.uint8))
        (tmp_path / f"Annotations/{name}.xml").write_text(
            f"<annotation><object><name>{kind}</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    (tmp_path / "list.txt").write_text("a\nb\n")
    return tmp_path


def voc_config(root, classes=("cat", "dog")):
    return Config(
        {
            "train_dataloader": {
                "dataset": {
                    "type": "VOCDataset",
                    "data_root": str(root),
                    "ann_file": "list.txt",
                    "data_prefix": {"sub_data_root": ""},
                    "metainfo": {"classes": classes},
                    "pipeline": [{"type": "LoadImageOrSkip"}],
                }
            }
        }
    )


def test_good_voc_set(voc):
    assert check_config(voc_config(voc), ("train",)) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "list.txt").unlink(), "there is no list of images"),
        (lambda root: (root / "list.txt").write_text(""), "lists no images"),
        (lambda root: (root / "Annotations/b.xml").unlink(), "1 of 2 annotation files are missing"),
        (
            lambda root: (root / "Annotations/b.xml").write_text("<annotation>"),
            "1 of 2 annotation files are malformed",
        ),
    ],
)
def test_bad_voc_sets(voc, spoil, message):
    spoil(voc)
    with pytest.raises(InputError, match=message):
        check_config(voc_config(voc), ("train",))


def test_voc_name_that_is_no_class(voc):
    with pytest.raises(InputError, match="name 'dog', which is not a class.*metainfo has: cat"):
        check_config(voc_config(voc, classes=("cat",)), ("train",))


def write(root, name, *objects):
    """An annotation file; of each object its name, corners and whether it is difficult."""
    text = "".join(
        f"<object><name>{kind}</name>{difficult}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for kind, (x1, y1, x2, y2), difficult in objects
    )
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{text}</annotation>")


@pytest.mark.parametrize(
    ("corners", "flat"),
    [((1, 1, 1, 9), True), ((1, 1, 9, 1), True), ((5, 1, 4, 9), True), ((1, 1, 2, 2), False)],
)
def test_boxes_without_area_are_counted(voc, corners, flat):
    write(voc, "a", ("cat", corners, ""))
    notes = check_config(voc_config(voc), ("train",))
    assert notes == ["train_dataloader.dataset: 1 of 2 boxes have no area."][:flat]


def test_images_without_objects_are_counted(voc):
    write(voc, "a")
    notes = check_config(voc_config(voc), ("train",))
    assert notes == ["train_dataloader.dataset: 1 of 2 images have no objects."]


DIFFICULT = "<difficult>1</difficult>"


def test_objects_marked_difficult_teach_nothing(voc):
    write(voc, "a", ("cat", (1, 1, 9, 9), DIFFICULT))
    write(voc, "b", ("dog", (1, 1, 9, 9), "<difficult>0</difficult>"))
    assert check_config(voc_config(voc), ("train",)) == []
    write(voc, "b", ("dog", (1, 1, 9, 9), DIFFICULT))
    with pytest.raises(InputError, match="has no object to train on"):
        check_config(voc_config(voc), ("train",))


def test_names_that_are_no_class_can_be_left_out(voc):
    cfg = voc_config(voc, classes=("cat",))
    cfg.preflight = {"extra_categories": "skip"}
    assert check_config(cfg, ("train",)) == []
    (voc / "list.txt").write_text("b\n")
    with pytest.raises(InputError, match="has no object to train on"):
        check_config(cfg, ("train",))


@pytest.mark.parametrize(
    "text",
    [
        "<annotation><object><name>cat</name></object></annotation>",
        "<annotation><object><name>cat</name><bndbox><xmin>one</xmin><ymin>1</ymin><xmax>2</xmax>"
        "<ymax>3</ymax></bndbox></object></annotation>",
    ],
)
def test_objects_without_numbers(voc, text):
    (voc / "Annotations/a.xml").write_text(text)
    with pytest.raises(InputError, match="1 of 2 annotation files are malformed: .*a.xml"):
        check_config(voc_config(voc), ("train",))
