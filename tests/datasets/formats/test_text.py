"""Encodings of text files: UTF-8 with a mark, UTF-16, Windows-1252, in each format."""

import json

import pytest
from helpers.data_folders import CLASSES, coco_of, write_folder, write_image

from misalign_det.datasets.formats import read_folder
from misalign_det.datasets.formats.text import RECODED, decode

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1")
# {format: files that name its classes}
FILES = {
    "COCO": "annotations/*.json",
    "VOC": "Annotations/*.xml",
    "YOLO": "classes.txt",
    "Roboflow YOLO": "data.yaml",
    "CVAT": "annotations.xml",
    "LabelMe": "*/*.json",
    "CSV": "boxes.csv",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", FILES)
def test_names_of_classes_in_each_encoding(kind, encoding, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    paths = list(root.glob(FILES[kind]))
    for path in paths:
        text = path.read_text().replace("bolt", "Schraube für Öl")
        path.write_bytes(text.encode(encoding))
    data = read_folder(str(root))
    assert sorted(data.classes) == ["Schraube für Öl", "nut"]
    assert len(data.splits["train"].content["annotations"]) == 4
    guessed = len(paths) if encoding == "latin-1" else 0
    if kind in ("VOC", "COCO", "LabelMe", "CVAT") and guessed:  # files without the name are ASCII
        guessed = sum(b"\xfc" in path.read_bytes() for path in paths)
    assert data.counts.number == ({RECODED: guessed} if guessed else {})


def test_a_coco_file_stays_where_it_is_only_if_pycocotools_can_read_it(tmp_path):
    root = write_folder(tmp_path / "set", "COCO")
    path = root / "annotations/instances_val.json"
    path.write_bytes(path.read_text().encode("utf-8-sig"))
    splits = read_folder(str(root)).splits
    assert splits["train"].file and splits["val"].file is None


def test_a_declared_encoding_of_several_bytes(tmp_path):
    root = write_folder(tmp_path / "set", "VOC")
    for path in (root / "Annotations").iterdir():
        text = path.read_text().replace("bolt", "螺栓")
        path.write_bytes(f'<?xml version="1.0" encoding="gbk"?>\n{text}'.encode("gbk"))
    data = read_folder(str(root))
    assert sorted(data.classes) == ["nut", "螺栓"] and str(data.counts) == ""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_labels_and_names_of_files(encoding, tmp_path):
    """Lists of splits name images; LabelMe's files too."""
    root = write_folder(tmp_path / "voc", "VOC")
    for path in (root / "Annotations/a.xml", root / "JPEGImages/a.jpg"):
        path.rename(path.with_stem("Öl"))
    path = root / "ImageSets/Main/train.txt"
    path.write_bytes(path.read_text().replace("a", "Öl").encode(encoding))
    assert len(read_folder(str(root)).splits["train"]) == 3
    root = write_folder(tmp_path / "yolo", "YOLO")
    path = root / "labels/train/b.txt"
    path.write_bytes(path.read_text().encode(encoding))
    assert len(read_folder(str(root)).splits["train"].content["annotations"]) == 4


def test_utf_16_without_a_mark_is_jsons_own(tmp_path):
    write_image(tmp_path / "a.jpg")
    path = tmp_path / "labels.json"
    path.write_bytes(json.dumps(coco_of("a")).encode("utf-16-le"))
    split = read_folder(str(tmp_path), kind="coco").splits[""]
    assert len(split.content["annotations"]) == 2 and split.file is None
    assert [c["name"] for c in split.content["categories"]] == CLASSES


def test_bytes_without_a_character_in_windows_1252():
    assert decode(b"\x81") == ("\x81", "latin-1")
    assert decode(b"\x80") == ("€", "cp1252")
