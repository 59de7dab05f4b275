"""CSV files: names of columns, relative coordinates, splits."""

import pytest
from helpers.data_folders import IMAGES, boxes_in, write_folder, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,nut,16,12,48,36\n",
        "ImageID,LabelName,XMin,YMin,XMax,YMax\na.png,nut,0.25,0.25,0.75,0.75\n",
        "image_path,x1,y1,x2,y2,label\nframes/a.png,16,12,48,36,nut\n",
        "\ufeffImage,Left,Top,Right,Bottom,Class Name\na.png,16,12,48,36,nut\n",
    ],
)
def test_names_of_columns(tmp_path, text):
    write_image(tmp_path / "frames/a.png")
    write_text(tmp_path / "boxes.csv", text)
    write_text(tmp_path / "other.csv", "epoch,loss\n1,2\n")
    content = read_folder(str(tmp_path)).splits[""].content
    assert boxes_in(content) == {"a": [("nut", (16, 12, 48, 36))]}


def test_other_columns_are_keys_of_the_image(tmp_path):
    write_image(tmp_path / "a.png")
    write_text(tmp_path / "train.csv", "file,class,xmin,ymin,xmax,ymax,video,id\na.png,nut,1,1,9,9,v1,77\n")  # fmt: skip  # noqa: E501
    (image,) = read_folder(str(tmp_path)).splits["train"].content["images"]
    assert image["video"] == "v1" and image["id"] == 1


def test_a_table_without_the_columns(tmp_path):
    write_image(tmp_path / "a.png")
    write_text(tmp_path / "boxes.csv", "a.png,nut,1,1,9,9\n")
    with pytest.raises(InputError, match="no CSV file has a header with the columns of a box"):
        read_folder(str(tmp_path), kind="csv")


def test_images_of_the_same_name_in_both_splits(tmp_path):
    for split in ("train", "val"):
        write_image(tmp_path / split / "b.jpg")
    header = "filename,class,xmin,ymin,xmax,ymax,split\n"
    write_text(tmp_path / "boxes.csv", header + "b.jpg,a,1,2,9,9,train\nb.jpg,a,3,4,8,8,val\n")
    found = read_folder(str(tmp_path)).splits
    assert {name: boxes_in(split.content)["b"] for name, split in found.items()} == {
        "train": [("a", (1, 2, 9, 9))], "val": [("a", (3, 4, 8, 8))]}  # fmt: skip
    for name, split in found.items():
        (image,) = split.content["images"]
        assert str(split.images / image["file_name"]) == str(tmp_path / name / "b.jpg")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_separators(tmp_path, separator, quote):
    root = write_folder(tmp_path / "set", "CSV")
    path = root / "boxes.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("\n".join(separator.join(f"{quote}{v}{quote}" for v in row) for row in rows))
    data = read_folder(str(root))
    assert boxes_in(data.splits["train"].content)["a"] == IMAGES["a"][1]
    assert str(data.counts) == "" and list(data.splits) == ["train", "val", "test"]


def test_a_table_of_a_spreadsheet_with_decimal_commas(tmp_path):
    write_image(tmp_path / "a.png")
    header = "filename;class;xmin;ymin;xmax;ymax"
    write_text(tmp_path / "boxes.csv", f"sep=;\n{header}\na.png;nut;16,5;12,25;48;36,0\n")
    content = read_folder(str(tmp_path)).splits[""].content
    assert boxes_in(content) == {"a": [("nut", (16.5, 12.25, 48, 36))]}


def test_a_table_that_cannot_be_read(tmp_path):
    write_image(tmp_path / "a.png")
    rows = f"filename,class,xmin,ymin,xmax,ymax\na.png,{'x' * 200_000},1,1,9,9\n"
    write_text(tmp_path / "boxes.csv", rows)
    with pytest.raises(InputError, match="boxes.csv is no CSV file that can be read: field larger"):
        read_folder(str(tmp_path))
