"""The same data set in each format is read as the same boxes, classes and splits."""

import json

import mmcv
import pytest
from helpers.data_folders import (
    CLASSES,
    IMAGES,
    WRITERS,
    boxes_in,
    write_folder,
    write_image,
    write_text,
)
from PIL import Image
from pycocotools.coco import COCO

from misalign_det.datasets.formats import files, read_folder
from misalign_det.datasets.formats.records import Counts
from misalign_det.errors import InputError

ORDERED = ("COCO", "Roboflow COCO", "YOLO", "Roboflow YOLO", "CVAT")


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_boxes(kind, tmp_path):
    data = read_folder(str(write_folder(tmp_path / "set", kind)))
    assert list(data.splits) == ["train", "val", "test"]
    for name, split in data.splits.items():
        truth = {image: boxes for image, (own, boxes) in IMAGES.items() if own == name}
        assert boxes_in(split.content) == truth
        for image in split.content["images"]:
            assert (split.images / image["file_name"]).is_file()
            assert (image["width"], image["height"]) == (64, 48)
    assert str(data.counts) == ""
    assert data.classes == (CLASSES if kind in ORDERED else sorted(CLASSES))
    title = kind if kind == "Roboflow COCO" else kind.removeprefix("Roboflow ")
    text = f"{title}, 2 classes ({', '.join(data.classes)}), 3 train, 2 val, 1 test images"
    assert str(data) == text


@pytest.mark.parametrize("kind", WRITERS)
def test_pycocotools_finds_every_box(kind, tmp_path, capsys):
    data = read_folder(str(write_folder(tmp_path / "set", kind)))
    path = tmp_path / "train.json"
    path.write_text(json.dumps(data.splits["train"].content))
    coco = COCO(str(path))
    assert sorted(coco.getAnnIds(iscrowd=False)) == [1, 2, 3, 4]  # it never counts an id of 0
    areas = [coco.anns[i]["area"] for i in coco.getAnnIds()]
    assert sorted(areas) == [16 * 12, 16 * 24, 32 * 24, 32 * 24]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_order_of_classes_can_be_given(kind, tmp_path):
    root = str(write_folder(tmp_path / "set", kind))
    for order in (["bolt", "nut"], ["nut", "bolt", "screw"]):
        data = read_folder(root, classes=order)
        content = data.splits["train"].content
        used = [c["name"] for c in content["categories"] if c["name"] in order]
        assert data.classes == order and used == (order if len(order) == 3 else used)
        assert boxes_in(content)["b"] == IMAGES["b"][1]
    with pytest.raises(InputError, match="name 'bolt', which the detector does not know"):
        read_folder(root, classes=["nut"])


def test_an_order_is_preferred_only_if_the_classes_are_the_same(tmp_path):
    root = str(write_folder(tmp_path / "set", "YOLO"))
    assert read_folder(root, prefer=("bolt", "nut")).classes == ["bolt", "nut"]
    assert read_folder(root, prefer=("bolt", "nut", "screw")).classes == CLASSES


def test_coco_files_that_can_be_used_stay_where_they_are(tmp_path):
    root = write_folder(tmp_path / "set", "COCO")
    for name, split in read_folder(str(root)).splits.items():
        assert split.file == root / f"annotations/instances_{name}.json"
    for split in read_folder(str(root), classes=["bolt", "nut"]).splits.values():
        assert split.file is None


def test_a_folder_without_annotations_or_images(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        read_folder(str(tmp_path / "none"))
    with pytest.raises(InputError, match="no images"):
        read_folder(str(tmp_path))
    write_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="1 images, but no annotations in COCO, Pascal VOC"):
        read_folder(str(tmp_path))


def test_boxes_without_area_and_outside_are_left_out_and_counted(tmp_path):
    root = write_folder(tmp_path / "set", "CSV")
    with open(root / "boxes.csv", "a") as opened:
        opened.write("a.jpg,nut,5,5,5,9,train,v\na.jpg,nut,9,5,5,9,train,v\n")
        opened.write("a.jpg,nut,70,5,80,9,train,v\na.jpg,nut,60,5,80,9,train,v\n")
        opened.write("a.jpg,nut,x,5,80,9,train,v\ngone.jpg,nut,1,1,2,2,train,v\n")
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["a"] == [
        *IMAGES["a"][1],
        ("nut", (60, 5, 64, 9)),
    ]
    assert data.counts.number == {
        "boxes without area": 2,
        "boxes outside the image": 1,
        "boxes that reach over the border of the image (clipped to it)": 1,
        "unreadable boxes": 1,
        "missing images": 1,
    }
    assert "1 missing images (first: gone.jpg)" in str(data.counts)


@pytest.mark.parametrize("kind", ["VOC", "LabelMe", "CSV"])
@pytest.mark.parametrize("name", ["", " "])
def test_boxes_without_a_class_name(kind, name, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    for path in [p for p in root.rglob("*") if p.suffix in (".xml", ".json", ".csv")]:
        text = path.read_text()
        for old in ("<name>bolt<", '"label": "bolt"', ",bolt,"):
            text = text.replace(old, old.replace("bolt", name))
        path.write_text(text)
    with pytest.raises(InputError, match=r"set: 3 boxes have an empty class name, .* of \S*a.jpg"):
        read_folder(str(root))


def test_a_null_is_no_class_name(tmp_path):
    root = write_folder(tmp_path / "set", "LabelMe")
    path = root / "train/a.json"
    path.write_text(path.read_text().replace('"nut"', "null"))
    with pytest.raises(InputError, match="1 boxes have an empty class name"):
        read_folder(str(root))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_image_whose_end_is_missing_is_left_out(kind, suffix, tmp_path, monkeypatch):
    """Its header is fine, but decoding it would stop the first validation."""
    root = write_folder(tmp_path / "set", kind)
    (path,) = root.rglob("d.jpg")
    write_image(path, format=suffix.replace("jpg", "jpeg"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    data = read_folder(str(root))
    assert list(boxes_in(data.splits["val"].content)) == ["e"]
    assert data.counts.number["unreadable images"] == 1
    assert "val: 1 of 2 images are left out: 1 unreadable images" in data.warnings[0]
    # Of a large folder the headers are read; that of a PNG file may be at its end.
    for limit in ("_DECODED_IMAGES", "_DECODED_BYTES") if suffix == "jpg" else ():
        with monkeypatch.context() as patch:
            patch.setattr(files, limit, 5)
            assert len(read_folder(str(root)).splits["val"]) == 2


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("limit", [0, 2000])
def test_the_size_is_that_of_the_loaded_image(suffix, orientation, limit, tmp_path, monkeypatch):
    """OpenCV turns not every format as its EXIF orientation says, and PIL gives TIFF turned."""
    monkeypatch.setattr(files, "_DECODED_IMAGES", limit)
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_image(tmp_path / f"a.{suffix}", exif=exif)
    size = files.FolderFiles(str(tmp_path)).size(f"a.{suffix}", Counts())
    assert size == mmcv.imread(str(tmp_path / f"a.{suffix}")).shape[1::-1]


def test_links_to_files_that_are_gone(tmp_path):
    root = write_folder(tmp_path / "set", "YOLO")
    (root / "images/train/c.jpg").unlink()
    (root / "images/train/c.jpg").symlink_to("/gone/c.jpg")
    (root / "d.csv").symlink_to("/gone/d.csv")
    data = read_folder(str(root))
    assert set(boxes_in(data.splits["train"].content)) == {"a", "b"}
    assert data.counts.number == {"missing images": 1}
    before = files.FolderFiles(str(root)).fingerprint()
    (root / "d.csv").unlink()
    write_text(root / "d.csv", "a\n")
    assert files.FolderFiles(str(root)).fingerprint() != before


def write_twice(root, kind):
    """Write the first object of an image twice into its annotations."""
    if kind == "YOLO":
        path = root / "labels/train/b.txt"
        write_text(path, path.read_text() * 2)
    elif kind == "CSV":
        path = root / "boxes.csv"
        (row,) = [line for line in path.read_text().splitlines() if line.startswith("b.jpg")]
        write_text(path, path.read_text() + row + "\n")
    elif kind == "LabelMe":
        path = root / "train/b.json"
        content = json.loads(path.read_text())
        write_text(path, {**content, "shapes": content["shapes"] * 2})
    else:
        path = root / {"VOC": "Annotations/b.xml", "CVAT": "annotations.xml"}[kind]
        tag = {"VOC": "object>", "CVAT": "box "}[kind]
        end = {"VOC": "</object>", "CVAT": "/>"}[kind]
        text = path.read_text()
        start = text.index(f"<{tag}", text.index("b.jpg"))
        stop = text.index(end, start) + len(end)
        write_text(path, text[:stop] + text[start:stop] + text[stop:])


@pytest.mark.parametrize("kind", ["VOC", "YOLO", "CVAT", "LabelMe", "CSV"])
def test_a_box_that_is_listed_twice_is_one(kind, tmp_path):
    root = write_folder(tmp_path / "set", kind)
    write_twice(root, kind)
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["b"] == IMAGES["b"][1]
    assert data.counts.number == {"boxes listed twice": 1} and data.warnings == []


@pytest.mark.parametrize("small", [True, False])
def test_images_beyond_pillows_limit_are_read(tmp_path, monkeypatch, small):
    """Pillow takes them for an attack; OpenCV, with which training loads images, does not."""
    monkeypatch.setattr(files, "_DECODED_IMAGES", 2000 * small)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    root = write_folder(tmp_path / "set", "YOLO")
    data = read_folder(str(root))
    assert str(data.counts) == "" and len(data.splits["train"]) == 3
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(root / "images/train/a.jpg")


@pytest.mark.parametrize(
    "content",
    [
        '{"meta": 1}',
        "[]",
        "{",
        '{"root": "x", "classes": ["nut"]}',
    ],
)
def test_a_file_named_data_json_is_not_always_that_of_a_run(tmp_path, content):
    root = write_folder(tmp_path / "set", "LabelMe")
    for split in ("train", "val"):
        (root / split).rename(root / "moving")
        (root / "site/data").mkdir(parents=True, exist_ok=True)
        (root / "moving").rename(root / "site/data" / split)
    write_text(root / "site/data/train/data.json", content)
    data = read_folder(str(root))
    assert {n: len(split) for n, split in data.splits.items()} == {"train": 3, "val": 2, "test": 1}
