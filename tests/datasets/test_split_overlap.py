"""Images that are in the training set and in the one that tests it."""

import copy
import json
import shutil

import pytest
from helpers.coco_set import CocoSet

from misalign_det.datasets import preflight, split_overlap
from misalign_det.datasets.preflight import check_config


@pytest.fixture
def good(tmp_path):
    return CocoSet(tmp_path)


@pytest.fixture
def apart(good):
    """A config whose val and test sets, the same one, have images of their own: 2 of the 4."""
    content = dict(good.content, images=good.content["images"][2:],
                   annotations=good.content["annotations"][2:])  # fmt: skip
    (good.root / "val.json").write_text(json.dumps(content))
    good.content["images"] = good.content["images"][:2]
    good.content["annotations"] = good.content["annotations"][:2]
    good.write()
    cfg = good.config()
    for mode in ("val", "test"):
        cfg[f"{mode}_dataloader"].dataset.ann_file = "val.json"
        cfg[f"{mode}_evaluator"].ann_file = str(good.root / "val.json")
    return cfg


def test_sets_of_their_own(apart):
    assert check_config(apart, ("train", "val", "test")) == []


def test_a_copy_under_another_name(good, apart):
    shutil.copy(good.image(1), good.image(3))
    (note,) = check_config(apart, ("train", "val", "test"))  # test is val, and is not named again
    assert note == (
        "val_dataloader.dataset: 1 of 2 images are trained on, too, so the results are better than "
        f"those on new images: {good.image(3)} (the same as {good.image(1)}). Take them out of one "
        "of the two."
    )


def test_files_of_the_same_size_are_no_copies(good, apart):
    data = bytearray(good.image(1).read_bytes())
    data[-3] ^= 1  # of the last pixels; it still decodes
    good.image(3).write_bytes(data)
    assert check_config(apart, ("train", "val")) == []


def test_an_image_that_both_files_list(good, apart):
    listed = json.loads((good.root / "val.json").read_text())
    listed["images"].append(good.content["images"][0])
    (good.root / "val.json").write_text(json.dumps(listed))
    *_, note = check_config(apart, ("train", "test"))
    assert note.startswith("test_dataloader.dataset: 1 of 3 images are trained on, too")
    assert f"new images: {good.image(0)}. Take" in note


def test_links_to_images_and_folders(good, apart):
    (good.root / "again").symlink_to(good.root / "images")
    for mode in ("val", "test"):
        apart[f"{mode}_dataloader"].dataset.data_prefix.img = "again/"
    assert check_config(apart, ("train", "val")) == []
    good.image(2).unlink()
    good.image(2).symlink_to(good.image(0))
    listed = json.loads((good.root / "val.json").read_text())
    listed["images"].append(good.content["images"][1])
    (good.root / "val.json").write_text(json.dumps(listed))
    *_, note = check_config(apart, ("train", "val"))
    again = good.root / "again"
    assert "2 of 3 images are trained on" in note
    assert f"{again / '1.jpg'}, {again / '2.jpg'} (the same as {good.image(0)}). Take" in note


def test_one_of_several_training_sets(good, apart):
    train = apart.train_dataloader.dataset
    val = copy.deepcopy(apart.val_dataloader.dataset)
    val.pipeline = train.pipeline
    apart.train_dataloader.dataset = {"type": "ConcatDataset", "datasets": [train, val]}
    shutil.copy(good.image(0), good.image(2))
    assert check_config(apart, ("train", "val")) == [], "a config that says so means it"
    listed = json.loads((good.root / "val.json").read_text())
    (good.root / "part.json").write_text(
        json.dumps(dict(listed, images=listed["images"][:1], annotations=listed["annotations"][:1]))
    )
    apart.val_dataloader.dataset.ann_file = "part.json"
    apart.val_evaluator.ann_file = str(good.root / "part.json")
    notes = check_config(apart, ("train", "val"))
    assert any("1 of 1 images are trained on, too" in note for note in notes), "another file"


def test_the_same_set_is_meant(good):
    assert check_config(good.config(), ("train", "val")) == []


def test_a_test_set_is_compared_before_the_training(good, apart):
    shutil.copy(good.image(1), good.image(3))
    apart.val_dataloader = apart.val_evaluator = None
    (note,) = check_config(apart, ("train",))
    assert note.startswith("test_dataloader.dataset: 1 of 2 images are trained on")
    (good.root / "val.json").write_text("{")  # its own check comes when it is tested
    assert check_config(apart, ("train",)) == []


def test_a_test_set_that_is_val_is_read_once(good, apart, monkeypatch):
    read, real = [], preflight.read_json
    monkeypatch.setattr(
        preflight, "read_json", lambda path, *a: read.append(path) or real(path, *a)
    )
    assert check_config(apart, ("train", "val")) == []
    assert sorted(read) == [str(good.file), str(good.root / "val.json")]


def test_it_says_when_its_time_is_over(good, apart, monkeypatch):
    shutil.copy(good.image(1), good.image(3))
    monkeypatch.setattr(split_overlap, "_SECONDS", -1.0)
    (note,) = check_config(apart, ("train", "val"))
    assert note.endswith("there was no time to compare all its images with those to train on.")


def test_what_is_found_in_time_is_said(tmp_path, monkeypatch):
    """All files of one size, as those of BMP: time for half of those to train on."""
    train, others = ([str(tmp_path / f"{i}{part}.bmp") for i in range(20)] for part in "tv")
    for i, (path, copy_of_it) in enumerate(zip(train, others)):
        for file in (path, copy_of_it):
            with open(file, "wb") as opened:
                opened.write(bytes([i]) * 100)
    clock = iter(range(1000))
    monkeypatch.setattr(split_overlap.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(split_overlap, "_SECONDS", 40 + 20 + 10)
    found, late = split_overlap.check_overlap(train, others, "val")
    assert "val: 10 of 20 images are trained on" in found and "no time" in late
    assert f"{others[0]} (the same as {train[0]})" in found


def test_missing_and_unreadable_files_are_left_to_their_own_check(tmp_path):
    there = tmp_path / "a.jpg"
    there.write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    others = [str(tmp_path / "gone.jpg"), str(tmp_path / "folder"), str(there)]
    size = (tmp_path / "folder").stat().st_size
    (tmp_path / "b.jpg").write_bytes(b"y" * size)
    train = [str(tmp_path / "b.jpg"), str(tmp_path / "missing.jpg")]
    assert split_overlap.check_overlap(train, others, "val") == []
