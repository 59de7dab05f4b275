"""Images in several splits, in none, and new splits of all of them."""

import json

import pytest
from helpers.data_folders import (
    IMAGES,
    boxes_in,
    coco_of,
    write_folder,
    write_image,
    write_text,
    yolo_of,
)

from misalign_det.datasets.formats import read_folder
from misalign_det.datasets.formats.export import export_coco

SHARED = {"train": "abc", "val": "bcd", "test": "cef"}


def names(data):
    return {split: "".join(boxes_in(one.content)) for split, one in data.splits.items()}


def write_lists(root, kind, lists):
    """The data set with other lists of its splits; YOLO's is in one folder."""
    root = write_folder(root, "VOC" if kind == "VOC" else "YOLO")
    for path in sorted(root.rglob("*.jpg")) if kind != "VOC" else ():
        path.rename(root / "images" / path.name)
    for path in sorted(root.glob("labels/*/*.txt")):
        path.unlink()
    for name, (_, boxes) in IMAGES.items() if kind != "VOC" else ():
        write_text(root / f"labels/{name}.txt", yolo_of(boxes).strip())
    for split, images in lists.items():
        if kind == "VOC":
            write_text(root / f"ImageSets/Main/{split}.txt", "\n".join(images))
        else:
            write_text(root / f"{split}.txt", "".join(f"images/{name}.jpg\n" for name in images))
    if kind == "YAML":
        lines = [f"{split}: {split}.txt" for split in lists]
        write_text(root / "data.yaml", "\n".join(["names: [nut, bolt]", *lines]))
    return root


@pytest.mark.parametrize("kind", ["VOC", "YAML", "Darknet"])
def test_an_image_in_several_lists_is_in_each_of_the_splits(tmp_path, kind):
    """As in a CSV file; preflight warns of it."""
    data = read_folder(str(write_lists(tmp_path / "set", kind, SHARED)))
    assert names(data) == SHARED and str(data.counts) == "" and data.warnings == []
    for split, images in SHARED.items():
        truth = {name: IMAGES[name][1] for name in images}
        assert boxes_in(data.splits[split].content) == truth


@pytest.mark.parametrize("kind", ["VOC", "YAML", "Darknet"])
def test_an_image_without_usable_annotations_is_missed_in_each_split(tmp_path, kind):
    root = write_lists(tmp_path / "set", kind, SHARED)
    next(root.rglob("c.jpg")).write_bytes(b"no image")
    counts = read_folder(str(root)).counts
    for split in SHARED:
        assert counts.of_split(split).number == {"unreadable images": 1}


def test_a_missing_voc_file_is_missed_in_each_split(tmp_path):
    root = write_lists(tmp_path / "set", "VOC", SHARED)
    (root / "Annotations/c.xml").unlink()
    counts = read_folder(str(root)).counts
    assert all(counts.of_split(split).number for split in SHARED)


def test_darknets_trainval_is_read_only_without_train(tmp_path):
    lists = {"trainval": "abcd", "val": "d", "test": "ef"}
    root = write_lists(tmp_path / "set", "Darknet", lists)
    assert names(read_folder(str(root))) == {"train": "abcd", "val": "d", "test": "ef"}
    write_text(root / "train.txt", "images/a.jpg\nimages/b.jpg\nimages/c.jpg\n")
    assert names(read_folder(str(root))) == {"train": "abc", "val": "d", "test": "ef"}


@pytest.mark.parametrize("kind", ["YAML"])
def test_a_folder_of_val_loses_no_image_to_a_list_of_train(tmp_path, kind):
    root = write_lists(tmp_path / "set", kind, {"train": "abcd", "val": "ef"})
    text = (root / "data.yaml").read_text()
    write_text(root / "data.yaml", text.replace("val.txt", "images"))
    assert names(read_folder(str(root))) == {"train": "abcd", "val": "abcdef"}
    write_text(root / "data.yaml", text.replace("train.txt", "images"))
    assert names(read_folder(str(root))) == {"train": "abcd", "val": "ef"}


def test_an_image_that_lists_of_a_yaml_file_name_elsewhere(tmp_path):
    """Its file is in another folder than all of the lists say."""
    root = write_lists(tmp_path / "set", "YAML", SHARED)
    for split in SHARED:
        path = root / f"{split}.txt"
        path.write_text(path.read_text().replace("images/c.jpg", "gone/images/c.jpg"))
    data = read_folder(str(root))
    assert {split: sorted(own) for split, own in names(data).items()} == {
        split: sorted(own) for split, own in SHARED.items()
    }
    assert str(data.counts) == ""


@pytest.mark.parametrize("kind", ["VOC", "YAML", "Darknet", "CSV"])
def test_images_in_no_split_are_a_warning(tmp_path, kind):
    lists = {"train": "ab", "val": "d", "test": "f"}
    if kind == "CSV":
        root = write_folder(tmp_path / "set", "CSV")
        path = root / "boxes.csv"
        rows = path.read_text().splitlines()
        rows = [row.replace("train", "") if row.startswith("c") else row.replace("val", "")
                if row.startswith("e") else row for row in rows]  # fmt: skip
        path.write_text("\n".join(rows))
    else:
        root = write_lists(tmp_path / "set", kind, lists)
    data = read_folder(str(root))
    assert names(data) == lists and data.counts.number == {"images in no split": 2}
    (warning,) = data.warnings
    assert warning.startswith(f"{root}: 2 of 6 images are in no split and are left out, such as ")
    assert warning.endswith("others are in train and val and test.")


def test_a_class_that_only_images_in_no_split_have_is_none(tmp_path):
    root = write_folder(tmp_path / "set", "CSV")
    path = root / "boxes.csv"
    path.write_text(path.read_text() + "e.jpg,screw,1,1,9,9,,v\n")
    path.write_text("\n".join(r for r in path.read_text().splitlines() if r[:7] != "e.jpg,,"))
    assert read_folder(str(root)).classes == ["bolt", "nut"]


def splits_in(out):
    paths = sorted((out / "annotations").iterdir())
    contents = {
        path.stem.removeprefix("instances_"): json.loads(path.read_text()) for path in paths
    }
    return {split: boxes_in(content) for split, content in contents.items()}


@pytest.mark.parametrize("option", [{"fractions": (0.5, 0.5, 0)}, {"group": r"\w\.jpg"}])
@pytest.mark.parametrize("kind", ["VOC", "YAML", "Darknet"])
def test_a_new_split_has_the_images_that_were_in_none(tmp_path, kind, option):
    root = write_lists(tmp_path / "set", kind, {"train": "ab", "val": "d", "test": "f"})
    if "group" in option:
        option = option | {"fractions": (0.5, 0.5, 0)}
    lines = export_coco(str(root), str(tmp_path / "out"), **option)
    found = splits_in(tmp_path / "out")
    assert {split: len(images) for split, images in found.items()} == {"train": 3, "val": 3}
    assert {name: own for images in found.values() for name, own in images.items()} == {
        name: boxes for name, (_, boxes) in IMAGES.items()
    }
    assert lines[-1] == "left out or changed: nothing"


def test_a_new_split_has_no_pictures_that_nobody_has_labelled(tmp_path):
    root = write_lists(tmp_path / "set", "YAML", {"train": "ab", "val": "d"})
    (root / "labels/e.txt").unlink()
    write_image(root / "pool/z.jpg")
    lines = export_coco(str(root), str(tmp_path / "out"), fractions=(0.5, 0.5, 0))
    found = splits_in(tmp_path / "out")
    assert sorted({**found["train"], **found["val"]}) == ["a", "b", "c", "d", "f"]
    assert "2 images in no split (first: images/e.jpg)" in lines[-1]


def coco_with_shared(root):
    for name in IMAGES:
        write_image(root / f"images/{name}.jpg")
    for split, images in SHARED.items():
        write_text(root / f"annotations/instances_{split}.json", coco_of(images))
    return root


@pytest.mark.parametrize("kind", ["COCO", "VOC"])
def test_an_image_of_several_splits_is_in_one_new_split(tmp_path, kind):
    root = tmp_path / "set"
    root = coco_with_shared(root) if kind == "COCO" else write_lists(root, kind, SHARED)
    for seed in range(5):
        out = tmp_path / f"out{seed}"
        lines = export_coco(str(root), str(out), fractions=(0.4, 0.3, 0.3), seed=seed)
        found = splits_in(out)
        assert sorted(name for images in found.values() for name in images) == list("abcdef")
        for images in found.values():
            assert images == {name: IMAGES[name][1] for name in images}
        assert "3 images listed twice" in lines[-1]
        for split in found:
            content = json.loads((out / f"annotations/instances_{split}.json").read_text())
            ids = [box["id"] for box in content["annotations"]]
            assert len(set(ids)) == len(ids)


def test_splits_that_stay_and_share_images_are_a_warning(tmp_path):
    lines = export_coco(str(coco_with_shared(tmp_path / "set")), str(tmp_path / "out"))
    assert {split: "".join(own) for split, own in splits_in(tmp_path / "out").items()} == SHARED
    (warning,) = [line for line in lines if line.startswith("WARNING")]
    assert "2 images are in several splits, such as images/b.jpg in train and val." in warning
    lines = export_coco(str(write_folder(tmp_path / "2", "COCO")), str(tmp_path / "out2"))
    assert not [line for line in lines if line.startswith("WARNING")]
