"""Images that the format which is read has no annotations of."""

import pytest
from helpers.data_folders import IMAGES, coco_of, write_folder, write_image, write_text, xml_of

from misalign_det.datasets.formats import read_folder

KINDS = {
    "VOC": "images without an annotation file",
    "LabelMe": "images without an annotation file",
    "CSV": "images that no CSV file names, beside others that one does",
}


def flat(root, kind):
    """The data set in one folder, without splits."""
    source = write_folder(root / "source", kind)
    root = root / "set"
    root.mkdir()
    for path in [p for p in source.rglob("*") if p.suffix in (".jpg", ".xml", ".json", ".csv")]:
        path.rename(root / path.name)
    table = root / "boxes.csv"
    if table.exists():
        text = table.read_text()
        for split in ("train", "val", "test"):
            text = text.replace(f",{split},", ",,")
        table.write_text(text)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_annotations_beside_others_are_counted(tmp_path, kind):
    root = flat(tmp_path, kind)
    assert str(read_folder(str(root)).counts) == ""
    for name in ("g.jpg", "h.png", "more/i.jpg", "a.png"):  # nobody else in more; a is annotated
        write_image(root / name)
    (root / "f.jpg").write_bytes(b"no image")  # counted as such
    data = read_folder(str(root))
    assert data.counts.number == {KINDS[kind]: 2, "unreadable images": 1}
    assert data.counts.first[KINDS[kind]] == "g.jpg"
    assert (
        f"3 of 8 images are left out: 1 unreadable images (first: f.jpg); 2 {KINDS[kind]}"
        in (data.warnings[0])
    )


def test_a_damaged_file_of_an_image_is_counted_once(tmp_path):
    root = flat(tmp_path, "LabelMe")
    write_text(root / "c.json", "{")
    assert read_folder(str(root)).counts.number == {"unreadable annotations": 1}


@pytest.mark.parametrize("read", ["VOC", "LabelMe", "COCO"])
def test_boxes_in_another_format_are_a_warning(tmp_path, read):
    """As where the format was changed in the middle of the work."""
    if read == "COCO":
        for name in "abc":
            write_image(tmp_path / f"set/{name}.jpg")
        write_text(tmp_path / "set/all.json", coco_of("abc"))
    else:
        flat(tmp_path, read)
    for name in "xyz":
        write_image(tmp_path / f"set/{name}.jpg")
        if read == "LabelMe":
            write_text(tmp_path / f"set/{name}.xml", xml_of(name, IMAGES["a"][1]))
        else:
            write_text(tmp_path / f"set/{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(tmp_path / "set/z.txt", "")
    write_text(tmp_path / "set/classes.txt", "nut\n")
    data = read_folder(str(tmp_path / "set"), kind="auto")
    if read == "LabelMe":
        assert data.format == "VOC" and len(data.splits[""]) == 3
        expected = "5 images without boxes, such as a.jpg, have some in LabelMe format"
    else:
        assert data.format == read
        expected = "2 images without boxes, such as x.jpg, have some in YOLO format"
    assert [text for text in data.warnings if expected in text], data.warnings
    asked = read_folder(str(tmp_path / "set"), kind=data.format.lower())
    assert not [text for text in asked.warnings if "Convert" in text]


def test_boxes_of_a_table_beside_xml_files(tmp_path):
    root = flat(tmp_path, "VOC")
    write_image(root / "x.jpg")
    rows = "filename,class,xmin,ymin,xmax,ymax\na.jpg,nut,1,1,9,9\nx.jpg,nut,1,1,9,9\n"
    write_text(root / "boxes.csv", rows)
    warnings = read_folder(str(root)).warnings
    assert "1 images without boxes, such as x.jpg, have some in CSV format" in warnings[-1]


def test_the_same_boxes_in_two_formats_are_no_warning(tmp_path):
    """Image e has no objects: its text file is empty, its XML file has none."""
    root = flat(tmp_path, "VOC")
    write_text(root / "classes.txt", "nut\n")
    for name, (_, boxes) in IMAGES.items():
        write_text(root / f"{name}.txt", "0 0.5 0.5 0.5 0.5\n" if boxes else "")
        write_text(root / f"{name}.json", {"imagePath": f"{name}.jpg", "shapes": []})
    data = read_folder(str(root))
    assert data.warnings == [] and str(data.counts) == ""
