"""Which annotations belong to which image, where several files have the same name."""

import pytest
from helpers.data_folders import boxes_in, coco_of, write_image, write_text, xml_of

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError

BOXES = {"train": ("nut", (0, 0, 16, 12)), "val": ("bolt", (8, 6, 24, 30))}
LINES = {"train": "0 0.125 0.125 0.25 0.25\n", "val": "1 0.25 0.375 0.25 0.5\n"}
HEADER = "filename,class,xmin,ymin,xmax,ymax\n"


def found(root):
    """{path of an image below the folder: its boxes}, and what was counted."""
    data = read_folder(str(root))
    images = {}
    for split in data.splits.values():
        boxes = boxes_in({**split.content, "images": [
            {**image, "file_name": image["file_name"].replace("/", "|")}
            for image in split.content["images"]
        ]})  # fmt: skip
        folder = split.images.relative_to(root).as_posix()
        images |= {f"{folder}/{name}".replace("|", "/").removeprefix("./"): own
                   for name, own in boxes.items()}  # fmt: skip
    return images, data


def labelme_of(name, split):
    label, (x1, y1, x2, y2) = BOXES[split]
    shape = {"label": label, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}
    return {"imagePath": name, "imageWidth": 64, "imageHeight": 48, "shapes": [shape]}


def row_of(name, split):
    label, bbox = BOXES[split]
    return f"{name},{label},{','.join(map(str, bbox))}\n"


def write_annotations(root, kind, split, number):
    """Write the annotations of an image beside it."""
    place = root / split / str(number)
    if kind == "VOC":
        write_text(place.with_suffix(".xml"), xml_of(str(number), [BOXES[split]], origin=0))
    elif kind == "LabelMe":
        write_text(place.with_suffix(".json"), labelme_of(f"{number}.jpg", split))
    elif kind == "YOLO":
        write_text(place.with_suffix(".txt"), LINES[split])
        write_text(root / "classes.txt", "nut\nbolt\n")
    else:
        table = place.with_name("_annotations.csv")
        write_text(table, (table.read_text() if table.exists() else HEADER)
                   + row_of(f"{number}.jpg", split))  # fmt: skip


@pytest.mark.parametrize("missing", ["train", "val"])
@pytest.mark.parametrize("kind", ["VOC", "LabelMe", "CSV", "YOLO"])
def test_boxes_of_a_missing_image_go_onto_no_other(kind, missing, tmp_path):
    for split in BOXES:
        for number in range(3):
            write_annotations(tmp_path, kind, split, number)
            if (split, number) != (missing, 1):
                write_image(tmp_path / split / f"{number}.jpg")
    images, data = found(tmp_path)
    assert images == {
        f"{split}/{number}": [BOXES[split]]
        for split in BOXES for number in range(3) if (split, number) != (missing, 1)
    }  # fmt: skip
    assert data.counts.number == {"missing images": 1}
    assert data.counts.of_split(missing).number == {"missing images": 1}


@pytest.mark.parametrize("kind", ["VOC", "LabelMe", "CSV", "YOLO"])
def test_folders_that_are_no_splits_are_paired_too(kind, tmp_path):
    for split, camera in (("train", "cam1"), ("val", "cam2")):
        for number in range(3):
            write_annotations(tmp_path, kind, split, number)
            write_image(tmp_path / split / f"{number}.jpg")
        (tmp_path / split).rename(tmp_path / camera)
    (tmp_path / "cam2/1.jpg").unlink()
    images, data = found(tmp_path)
    assert images["cam1/1"] == [BOXES["train"]] and len(images) == 5
    assert data.counts.number == {"missing images": 1}


def test_an_image_without_labels_takes_none_of_another_split(tmp_path):
    write_text(tmp_path / "classes.txt", "nut\nbolt\n")
    for split in BOXES:
        for number in range(3):
            write_image(tmp_path / f"images/{split}/{number}.jpg")
            if (split, number) != ("val", 1):
                write_text(tmp_path / f"labels/{split}/{number}.txt", LINES[split])
    images, data = found(tmp_path)
    assert images["images/val/1"] == [] and images["images/train/1"] == [BOXES["train"]]
    assert len(images) == 6 and str(data.counts) == ""
    (tmp_path / "images/train/1.jpg").unlink()  # the labels are the nearest of their name, then
    images, data = found(tmp_path)
    assert images["images/val/1"] == [] and data.counts.number == {"missing images": 1}


@pytest.mark.parametrize("kind", ["VOC", "YOLO", "COCO"])
def test_words_in_names_of_folders(kind, tmp_path):
    for split in BOXES:
        for name in "abc":
            write_image(tmp_path / f"{split}_images/{name}.jpg")
            if kind == "VOC":
                text = xml_of(name, [BOXES[split]], origin=0)
                write_text(tmp_path / f"{split}_annotations/{name}.xml", text)
            elif kind == "YOLO":
                write_text(tmp_path / f"{split}_labels/{name}.txt", LINES[split])
                write_text(tmp_path / "classes.txt", "nut\nbolt\n")
        if kind == "COCO":
            write_text(tmp_path / f"annotations/{split}.json", coco_of("abc"))
    images, data = found(tmp_path)
    assert list(images) == [f"{split}_images/{name}" for split in BOXES for name in "abc"]
    if kind != "COCO":
        assert all(boxes == [BOXES[name.split("_")[0]]] for name, boxes in images.items())
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 3, "val": 3}


def test_words_that_are_no_splits_pair_folders_too(tmp_path):
    write_text(tmp_path / "classes.txt", "nut\nbolt\n")
    for split, camera in (("train", "cam1"), ("val", "cam2")):
        write_image(tmp_path / f"{camera}_images/a.jpg")
        write_text(tmp_path / f"{camera}_labels/a.txt", LINES[split])
    assert found(tmp_path)[0] == {
        "cam1_images/a": [BOXES["train"]], "cam2_images/a": [BOXES["val"]]}  # fmt: skip


def test_the_image_whose_name_a_voc_file_states_comes_first(tmp_path):
    write_image(tmp_path / "images/p.jpg")
    write_image(tmp_path / "annotations/more/p.png")
    write_text(tmp_path / "annotations/xmls/p.xml", xml_of("p", [BOXES["train"]], origin=0))
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "a.png")
    text = xml_of("a", [BOXES["val"]], origin=0)
    write_text(tmp_path / "a.xml", text.replace("a.jpg", "C:\\data\\a.png"))
    data = read_folder(str(tmp_path))
    names = [image["file_name"] for image in data.splits[""].content["images"]]
    assert sorted(names) == ["a.png", "images/p.jpg"]
    write_text(tmp_path / "a.xml", text.replace("a.jpg", "other.jpg"))
    with pytest.raises(InputError, match=r"a\.xml fits both a\.jpg and a\.png"):
        read_folder(str(tmp_path))


@pytest.mark.parametrize("other", ["masks", "predictions/pictures", "images/thumbs"])
def test_pictures_made_of_images_are_none(other, tmp_path):
    write_text(tmp_path / "classes.txt", "nut\nbolt\n")
    for name in "abc":
        write_image(tmp_path / f"images/{name}.jpg")
        write_image(tmp_path / f"{other}/{name}.png")
    for name in "ab":
        write_text(tmp_path / f"labels/{name}.txt", LINES["train"])
    images, data = found(tmp_path)
    assert sorted(images) == ["images/a", "images/b", "images/c"]
    kind = "images of folders without labels that have the names of labelled images elsewhere"
    assert data.counts.number == {kind: 3}
    assert f"3 {kind} (first: {other}/a.png). They are left out." in data.warnings[0]
    write_text(tmp_path / "data.yaml", f"train: images\nval: {other}\nnames: [nut, bolt]\n")
    images, data = found(tmp_path)  # the folder is named
    assert images[f"{other}/a"] == [] and str(data.counts) == ""


def test_a_list_of_a_yaml_file_takes_no_image_of_another_list(tmp_path):
    for camera in ("cam1", "cam2"):
        for number in range(3):
            write_image(tmp_path / f"images/{camera}/{number}.jpg")
            write_text(tmp_path / f"labels/{camera}/{number}.txt", LINES["train"])
    (tmp_path / "images/cam1/1.jpg").unlink()
    write_text(tmp_path / "data.yaml", "train: train.txt\nval: val.txt\nnames: [nut, bolt]\n")
    for split, camera in (("train", "cam1"), ("val", "cam2")):
        lines = [f"./images/{camera}/{number}.jpg" for number in range(3)]
        write_text(tmp_path / f"{split}.txt", "\n".join(lines))
    data = read_folder(str(tmp_path))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "val": 3}
    assert data.counts.first["missing images"] == "train.txt: ./images/cam1/1.jpg"
    write_text(tmp_path / "val.txt", "images/cam2/0.jpg\n")  # nobody else names the image, now
    sizes = {name: len(split) for name, split in read_folder(str(tmp_path)).splits.items()}
    assert sizes == {"train": 3, "val": 1}


@pytest.mark.parametrize("kind", ["CSV", "CVAT"])
def test_an_image_in_another_folder_than_its_name_says(kind, tmp_path):
    names = [f"{camera}/{number}.jpg" for camera in ("cam1", "cam2") for number in range(3)]
    for name in names:
        write_image(tmp_path / name)
    (tmp_path / "cam2/1.jpg").unlink()
    rows = [row_of(name, "train") for name in names]
    nodes = [f'<image name="{name}"><box label="nut" xtl="0" ytl="0" xbr="16" ybr="12"/></image>'
             for name in names]  # fmt: skip

    def write(keep):
        if kind == "CSV":
            write_text(tmp_path / "boxes.csv", HEADER + "".join(r for r in rows if keep(r)))
        else:
            kept = "".join(node for node in nodes if keep(node))
            write_text(tmp_path / "boxes.xml", f"<annotations>{kept}</annotations>")

    write(lambda text: True)
    images, data = found(tmp_path)
    assert images["cam1/1"] == [BOXES["train"]] and len(images) == 5
    assert data.counts.number == {"missing images": 1}
    assert data.counts.first["missing images"] == "cam2/1.jpg"
    write(lambda text: "cam1/1" not in text)  # only one name is of the image
    images, data = found(tmp_path)
    assert images["cam1/1"] == [BOXES["train"]] and str(data.counts) == ""


def test_a_path_of_another_machine(tmp_path):
    for camera in ("cam1", "cam2"):
        write_image(tmp_path / f"set/{camera}/a.jpg")
    rows = row_of("/data/my/set/cam1/a.jpg", "train") + row_of("..\\set\\cam2\\a.jpg", "val")
    write_text(tmp_path / "boxes.csv", HEADER + rows)
    images, data = found(tmp_path)
    assert images == {"set/cam1/a": [BOXES["train"]], "set/cam2/a": [BOXES["val"]]}
    assert str(data.counts) == ""
    write_text(tmp_path / "more.csv", HEADER + row_of("set/cam1/a.jpg", "train"))
    images, data = found(tmp_path)  # both names are of the image
    assert data.counts.number == {"images listed twice": 1, "boxes listed twice": 1}


def test_paths_from_the_folder_of_the_annotations(tmp_path):
    for name in ("a/1.jpg", "old/a/1.jpg", "b/2.jpg", "c/2.jpg"):
        write_image(tmp_path / name)
    rows = row_of("../a/1.jpg", "train") + row_of("gone/2.jpg", "train")
    write_text(tmp_path / "old/boxes.csv", HEADER + rows)
    images, data = found(tmp_path)  # "gone/2.jpg" could be either image, so that it is missing
    assert images == {"a/1": [BOXES["train"]]}
    assert data.counts.number == {"missing images": 1}


def test_a_name_that_contradicts_its_split_is_missing(tmp_path):
    for name in ("train/a.jpg", "val/a.jpg", "val/b.jpg"):
        write_image(tmp_path / name)
    rows = [row_of(name, "train") for name in ("train/a.jpg", "train/b.jpg", "val/a.jpg")]
    write_text(tmp_path / "boxes.csv", HEADER + "".join(rows))
    images, data = found(tmp_path)
    assert set(images) == {"train/a", "val/a"}
    assert data.counts.of_split("train").number == {"missing images": 1}


def test_files_of_splits_may_have_their_images_in_one_folder(tmp_path):
    """As Kaggle's: the images of ``test`` have no boxes, and ``val`` is a part of ``train``."""
    for name in ("train/a.jpg", "train/b.jpg", "test/c.jpg"):
        write_image(tmp_path / name)
    for split, name in (("train", "a.jpg"), ("val", "b.jpg")):
        write_text(tmp_path / f"{split}.csv", HEADER + row_of(name, split))
    data = read_folder(str(tmp_path))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 1, "val": 1}
    assert str(data.counts) == "" and data.warnings == []
    rows = row_of("a.jpg", "val") + row_of("b.jpg", "val")
    write_text(tmp_path / "val.csv", HEADER + rows)  # a leak is no missing image
    data = read_folder(str(tmp_path))
    assert len(data.splits["val"]) == 2 and str(data.counts) == ""


def test_tables_of_splits_beside_folders_of_images(tmp_path):
    for split in BOXES:
        write_image(tmp_path / split / "images/1.jpg")
        write_text(tmp_path / split / "labels/boxes.csv", HEADER + row_of("1.jpg", split))
    rows = row_of("1.jpg", "train") + row_of("2.jpg", "train")
    write_text(tmp_path / "train/labels/boxes.csv", HEADER + rows)
    write_image(tmp_path / "train/images/2.jpg")
    (tmp_path / "train/images/1.jpg").unlink()
    images, data = found(tmp_path)
    assert images == {"train/images/2": [BOXES["train"]], "val/images/1": [BOXES["val"]]}
    assert data.counts.of_split("train").number == {"missing images": 1}


def test_two_files_that_fit_alike_are_named(tmp_path):
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "1.jpg")
    write_text(tmp_path / "boxes.csv", HEADER + row_of("1.jpg", "train"))
    with pytest.raises(InputError, match=r"boxes\.csv: 1\.jpg fits both a/1\.jpg and b/1\.jpg"):
        read_folder(str(tmp_path))
    write_text(tmp_path / "c/1.xml", xml_of("1", [BOXES["train"]]))
    with pytest.raises(InputError, match=r"c/1\.xml fits both a/1\.jpg and b/1\.jpg\. Take one"):
        read_folder(str(tmp_path))
    (tmp_path / "c/1.xml").unlink()
    write_text(tmp_path / "all.json", coco_of("a") | {"images": [{"id": 0, "file_name": "1.jpg"}]})
    with pytest.raises(InputError, match=r"all\.json: 1\.jpg fits both"):
        read_folder(str(tmp_path))
    write_image(tmp_path / "b/2.jpg")  # shows the folder
    new = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)]
    write_text(tmp_path / "all.json", coco_of("") | {"images": new})
    (split,) = read_folder(str(tmp_path), kind="coco", classes=["nut", "bolt"]).splits.values()
    assert split.images == tmp_path / "b"


def test_two_yolo_files_that_fit_alike_are_named(tmp_path):
    write_text(tmp_path / "classes.txt", "nut\nbolt\n")
    for folder in ("rgb", "infrared"):
        write_image(tmp_path / folder / "1.jpg")
    write_text(tmp_path / "labels/1.txt", LINES["train"])
    with pytest.raises(InputError, match=r"labels/1\.txt fits both infrared/1\.jpg and rgb/1\.jpg"):
        read_folder(str(tmp_path))
    write_text(tmp_path / "data.yaml", "train: rgb\nval: rgb\nnames: [nut, bolt]\n")
    images, data = found(tmp_path)  # the other one is in no split
    assert images == {"rgb/1": [BOXES["train"]]}
    for text, labels in (("1 2\n", True), (LINES["val"], False)):
        write_text(tmp_path / "labels_2/1.txt", text)
        write_text(tmp_path / "labels/1.txt", LINES["train"])
        (tmp_path / "labels").rename(tmp_path / "labels_1")
        if labels:  # the other file has none
            assert found(tmp_path)[0] == {"rgb/1": [BOXES["train"]]}
        else:
            with pytest.raises(InputError, match="rgb/1.jpg fits both labels_1/1.txt and labels_2"):
                read_folder(str(tmp_path))
        (tmp_path / "labels_1").rename(tmp_path / "labels")


def test_one_label_file_is_of_both_images_beside_it(tmp_path):
    """As where JPEG files were made of PNG files."""
    write_text(tmp_path / "classes.txt", "nut\nbolt\n")
    for name in ("a.jpg", "a.png"):
        write_image(tmp_path / "images" / name)
    write_text(tmp_path / "labels/a.txt", LINES["train"])
    data = read_folder(str(tmp_path))
    content = data.splits[""].content
    assert len(content["images"]) == len(content["annotations"]) == 2
    kind = "images that share their text file with another image beside them"
    assert data.counts.number == {kind: 1} and data.counts.first[kind] == "images/a.png"
    assert "If they are one picture, or a mask, keep one of them." in data.warnings[0]


def test_images_of_no_split_take_no_labels_from_others(tmp_path):
    for folder in ("images", "enhanced"):
        write_image(tmp_path / folder / "1.jpg")
    write_text(tmp_path / "labels/1.txt", LINES["train"])
    write_text(tmp_path / "data.yaml", "train: enhanced\nval: enhanced\nnames: [nut, bolt]\n")
    assert found(tmp_path)[0] == {"enhanced/1": [BOXES["train"]]}


def test_an_image_beside_labelled_ones_is_no_copy(tmp_path):
    write_text(tmp_path / "classes.txt", "nut\nbolt\n")
    for name in ("cam1/1", "cam1/2", "cam2/2"):
        write_image(tmp_path / f"{name}.jpg")
    for name in ("cam1/1", "cam2/2"):
        write_text(tmp_path / f"{name}.txt", LINES["val"])
    images, data = found(tmp_path)
    assert images["cam1/2"] == [] and len(images) == 3 and str(data.counts) == ""
