"""Bad input in Pascal VOC's format."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from misalign_det.engine.preflight import InputError, check_config


@pytest.fixture
def voc(tmp_path):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir()
    for name, kind in (("a", "cat"), ("b", "dog")):
        cv2.imwrite(str(tmp_path / f"JPEGImages/{name}.jpg"), np.zeros((48, 64, 3), np.uint8))
        (tmp_path / f"Annotations/{name}.xml").write_text(
            f"<annotation><object><name>{kind}</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>")
    (tmp_path / "list.txt").write_text("a\nb\n")
    return tmp_path


def voc_config(root, classes=("cat", "dog")):
    return Config({"train_dataloader": {"dataset": {
        "type": "VOCDataset", "data_root": str(root), "ann_file": "list.txt",
        "data_prefix": {"sub_data_root": ""}, "metainfo": {"classes": classes},
        "pipeline": [{"type": "LoadImageOrSkip"}]}}})


def test_good_voc_set(voc):
    assert check_config(voc_config(voc), ("train",)) == []


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda root: (root / "list.txt").unlink(), "there is no list of images"),
    (lambda root: (root / "list.txt").write_text(""), "lists no images"),
    (lambda root: (root / "Annotations/b.xml").unlink(), "1 of 2 annotation files are missing"),
    (lambda root: (root / "Annotations/b.xml").write_text("<annotation>"),
     "1 of 2 annotation files are malformed"),
])
def test_bad_voc_sets(voc, spoil, message):
    spoil(voc)
    with pytest.raises(InputError, match=message):
        check_config(voc_config(voc), ("train",))


def test_voc_name_that_is_no_class(voc):
    with pytest.raises(InputError, match="name 'dog', which is no class.*metainfo has: cat"):
        check_config(voc_config(voc, classes=("cat",)), ("train",))
