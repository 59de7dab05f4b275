"""What --data makes of a folder: splits, files in the work dir, the lines that it says."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
from helpers.data_folders import IMAGES, WRITERS, boxes_in, write_folder
from mmengine.config import Config

from misalign_det.apis.own_data import data_option
from misalign_det.apis.own_data.conversion import convert
from misalign_det.errors import InputError


def content(data, split):
    return json.loads(Path(data.ann_files[split]).read_text())


def files_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_written_into_the_folder(kind, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    before = files_in(root)
    data = convert(str(root), str(tmp_path / "run"))
    assert files_in(root) == before
    for split, path in data.ann_files.items():
        assert Path(path).is_relative_to(root if kind == "COCO" else tmp_path / "run/data")
        for image in content(data, split)["images"]:
            assert Path(data.image_folders[split], image["file_name"]).is_file()
    assert data.converted == ("COCO" not in kind)
    assert "3 train, 2 val, 1 test images." in data.lines[0]
    written = [line for line in data.lines if "in COCO format: " in line]
    assert len(written) == (kind != "COCO")


def test_a_folder_is_converted_again_only_when_it_has_changed(tmp_path):
    root = write_folder(tmp_path / "set", "VOC")
    first = convert(str(root), str(tmp_path / "run"))
    written = files_in(tmp_path / "run")
    assert convert(str(root), str(tmp_path / "run")) == first
    # As test.py does, which knows the classes of the checkpoint.
    assert convert(str(root), str(tmp_path / "run"), classes=first.classes) == first
    assert files_in(tmp_path / "run") == written
    os.utime(root / "Annotations/a.xml", (1, 1))
    again = convert(str(root), str(tmp_path / "run"))
    assert again.ann_files["val"] != first.ann_files["val"]
    assert files_in(tmp_path / "run").items() >= written.items() - {
        item for item in written.items() if item[0].is_dir()
    }
    other = convert(str(root), str(tmp_path / "run"), classes=["nut", "bolt"])
    assert other.classes == ["nut", "bolt"] != again.classes


@pytest.mark.parametrize("inside", ["run", "work_dirs/run"])
def test_a_work_dir_inside_the_folder_is_not_data(inside, tmp_path):
    root = write_folder(tmp_path / "set", "VOC")
    first = convert(str(root), str(root / inside))
    shutil.copy(root / "JPEGImages/a.jpg", root / inside / "picture.jpg")
    again = convert(str(root), str(root / inside))
    assert again == first and again.lines[0].startswith(f"{root}: VOC, ")
    if inside == "work_dirs/run":  # nor is that of another run
        assert convert(str(root), str(root / "work_dirs/other")).converted
    with pytest.raises(InputError, match="--work-dir .*set is the folder of --data"):
        convert(str(root), str(root))


def test_the_work_dir_of_another_run_is_not_data(tmp_path):
    """Its COCO files have the boxes of that time, and would be taken for the folder's."""
    root = write_folder(tmp_path / "set", "YOLO")
    convert(str(root), str(root / "runs/one"))
    changed = root / "labels/train/a.txt"
    changed.write_text(changed.read_text().splitlines()[0] + "\n")
    data = convert(str(root), str(root / "runs/two"))
    assert data.converted and Path(data.ann_files["train"]).is_relative_to(root / "runs/two")
    kept = convert(str(root), str(tmp_path / "outside"))
    boxes = [len(content(each, "train")["annotations"]) for each in (data, kept)]
    assert boxes == [3, 3]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", "gone"])
def test_a_damaged_record_is_converted_again(damage, tmp_path):
    root = write_folder(tmp_path / "set", "VOC")
    first = convert(str(root), str(tmp_path / "run"))
    (record,) = tmp_path.glob("run/data/*/data.json")
    if damage == "gone":
        Path(first.ann_files["val"]).unlink()
    else:
        record.write_text(damage)
    assert convert(str(root), str(tmp_path / "run")) == first
    assert json.loads(record.read_text())["state"] == first.state
    assert Path(first.ann_files["val"]).is_file()


def test_without_splits_a_fifth_is_held_out(tmp_path):
    root = write_folder(tmp_path / "set", "YOLO")
    for name, (split, _) in IMAGES.items():
        for folder, suffix in (("images", "jpg"), ("labels", "txt")):
            path = root / folder / split / f"{name}.{suffix}"
            if path.exists():
                path.rename(root / folder / path.name)
    data = convert(str(root), str(tmp_path / "run"))
    found = {split: boxes_in(content(data, split)) for split in ("train", "val")}
    assert len(found["train"]) == 5 and len(found["val"]) == 1
    assert {**found["train"], **found["val"]} == {n: boxes for n, (_, boxes) in IMAGES.items()}
    assert data.ann_files["test"] == data.ann_files["val"]
    said = "no splits: a fifth of the 6 images is held out as val, seed 0; no test split: val is"
    assert f"5 train, 1 val images; {said} used." in data.lines[0]
    other = convert(str(root), str(tmp_path / "other"))
    assert content(other, "val") == content(data, "val")


@pytest.mark.parametrize(
    ("gone", "sizes", "notes"),
    [
        (["test"], (3, 2, 2), "3 train, 2 val images; no test split: val is used."),
        (
            ["val"],
            (2, 1, 1),
            "2 train, 1 val, 1 test images; no val split: a fifth of the 3 images",
        ),
        (["train", "val"], (None, 1, 1), "1 test images; no val split: test is used."),
    ],
)
def test_splits_that_are_missing(tmp_path, gone, sizes, notes):
    root = write_folder(tmp_path / "set", "COCO")
    for split in gone:
        (root / f"annotations/instances_{split}.json").unlink()
    data = convert(str(root), str(tmp_path / "run"))
    found = [
        len(content(data, s)["images"]) if s in data.ann_files else None
        for s in ("train", "val", "test")
    ]
    assert tuple(found) == sizes and notes in data.lines[0]
    if "test" not in gone and "val" in gone and "train" not in gone:
        ids = [{i["file_name"] for i in content(data, s)["images"]} for s in ("train", "val")]
        assert not ids[0] & ids[1]


def test_what_is_left_out_is_said(tmp_path):
    root = write_folder(tmp_path / "set", "VOC")
    (root / "JPEGImages/a.jpg").unlink()
    data = convert(str(root), str(tmp_path / "run"))
    assert "left out or changed: 1 missing images (first: Annotations/a.xml)." in data.lines[1]


def test_a_work_dir_that_cannot_be_written_to(tmp_path):
    root = write_folder(tmp_path / "set", "VOC")
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="cannot write .*--work-dir"):
        convert(str(root), str(tmp_path / "run"))


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set", "VOC")
    monkeypatch.setitem(__import__("sys").modules, "globox", None)
    with pytest.raises(InputError, match=r'pip install "misalign_det\[data\]"'):
        convert(str(root), str(tmp_path / "run"))
    convert(str(write_folder(tmp_path / "coco", "COCO")), str(tmp_path / "run"))


def test_warnings_are_logged_as_such(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set", "VOC")
    (root / "JPEGImages/d.jpg").unlink()
    said = []
    monkeypatch.setattr(
        data_option, "print_log", lambda text, logger, level=20: said.append((level, text))
    )
    for _ in range(2):  # the second time from the record
        data_option.use_data(Config({"work_dir": str(tmp_path / "run")}), str(root))
        (warning,) = [text for level, text in said if level == logging.WARNING]
        assert "val: 1 of 2 images are left out: 1 missing images" in warning
        said.clear()
