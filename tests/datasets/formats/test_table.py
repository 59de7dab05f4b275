"""CSV files: names of columns, relative coordinates, splits."""

import pytest
from helpers.data_folders import IMAGES, boxes_in, write_folder, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.datasets.formats.records import UNNAMED
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


# --- several files, and rows that say more than a box ---------------------------------------------

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"


def write_table(path, names, more="", header=HEADER, box="64,48,nut,16,12,48,36"):
    write_text(path, "\n".join([header, *(f"{name}.jpg,{box}{more}" for name in names)]))


def images_and_boxes(root):
    """{split: {image: number of boxes}} of a folder, what was counted, and the warnings.

    But for the images that no table names, of which there are some in most tests here.
    """
    data = read_folder(str(root))
    data.counts.number.pop(UNNAMED, None)
    data.warnings = [text for text in data.warnings if UNNAMED not in text]
    found = {
        split: {name: len(boxes) for name, boxes in boxes_in(one.content).items()}
        for split, one in data.splits.items()
    }
    return found, data.counts.number, data.warnings


@pytest.fixture
def five(tmp_path):
    for name in "abcde":
        write_image(tmp_path / f"images/{name}.jpg")
    return tmp_path


@pytest.mark.parametrize("test", ["test_labels", "boxes-test", "boxes.test 2"])
def test_the_split_is_a_word_of_the_name(five, test):
    write_table(five / "train_labels.csv", "abc")
    write_table(five / f"{test}.csv", "de")
    found, counted, _ = images_and_boxes(five)
    assert found == {"train": {"a": 1, "b": 1, "c": 1}, "test": {"d": 1, "e": 1}} and not counted


def test_a_file_of_all_splits_beside_them_adds_nothing(five):
    write_table(five / "train_labels.csv", ["a", "b", "c", "gone"])
    write_table(five / "test_labels.csv", "de")
    write_table(five / "all_labels.csv", ["a", "b", "c", "d", "e", "gone"])
    found, counted, _ = images_and_boxes(five)
    assert found == {"train": {"a": 1, "b": 1, "c": 1}, "test": {"d": 1, "e": 1}}
    assert counted == {
        "images of a split that a CSV file without a split lists again": 5,
        "boxes listed twice": 5,
        "missing images": 1,
    }


def test_boxes_that_only_the_file_of_all_splits_has_are_a_warning(five):
    write_table(five / "train.csv", "abc")
    write_table(five / "labels.csv", "ab", box="64,48,nut,1,2,8,9")
    found, _, warnings = images_and_boxes(five)
    assert found == {"train": {"a": 1, "b": 1, "c": 1}}
    assert "2 boxes that only a CSV file without a split has" in warnings[0]


def test_an_image_may_be_in_two_splits(five):
    """Preflight warns of it; each split has its own boxes."""
    write_table(five / "train.csv", "abcd")
    write_table(five / "val.csv", "de")
    found, counted, _ = images_and_boxes(five)
    assert found == {"train": dict.fromkeys("abcd", 1), "val": {"d": 1, "e": 1}} and not counted


def test_boxes_in_two_files_of_a_split_are_listed_twice(five):
    write_table(five / "train_1.csv", "abc")
    write_table(five / "train_2.csv", "cd")
    found, counted, _ = images_and_boxes(five)
    assert found == {"train": dict.fromkeys("abcd", 1)}
    assert counted == {"images listed twice": 1, "boxes listed twice": 1}


def test_trainval_is_read_only_without_train(five):
    write_table(five / "trainval.csv", "abcd")
    assert list(images_and_boxes(five)[0]) == ["train"]
    write_table(five / "train.csv", "abc")
    write_table(five / "val.csv", "d")
    assert images_and_boxes(five)[0] == {"train": dict.fromkeys("abc", 1), "val": {"d": 1}}


def test_values_of_the_split_column_that_are_no_split(five):
    """The file's name counts for rows without a value, and where no value is a split."""
    rows = [f"{HEADER},split", *(f"{name}.jpg,64,48,nut,1,1,9,9,{split}" for name, split in
            (("a", "train"), ("a", ""), ("b", ""), ("z", "dev"), ("c", "dev")))]  # fmt: skip
    write_image(five / "val/z.jpg")  # nor does the name of its folder count
    write_text(five / "test.csv", "\n".join(rows))
    found, counted, warnings = images_and_boxes(five)
    assert found == {"train": {"a": 1}, "test": {"a": 1, "b": 1}}
    assert counted == {"images in no split": 2} and "such as val/z.jpg" in warnings[0]
    write_text(five / "test.csv", "\n".join([rows[0], rows[-1]]))
    assert images_and_boxes(five)[0] == {"test": {"c": 1}}


def test_boxes_without_a_split_of_an_image_that_has_one(five):
    rows = [f"{HEADER},split", *(f"a.jpg,64,48,nut,1,1,9,{y},{split}" for y, split in
            ((8, ""), (9, "val")))]  # fmt: skip
    write_text(five / "boxes.csv", "\n".join(rows))
    assert images_and_boxes(five)[0] == {"val": {"a": 2}}


@pytest.mark.parametrize("other", ["0", "a", ""])
@pytest.mark.parametrize("first", [True, False])
def test_the_column_of_the_images_is_the_one_whose_values_are_names(five, other, first):
    columns, values = ["image_id", "image_path"], [other, "images/b.jpg"]
    step = 1 if first else -1
    head, row = (",".join(words[::step]) for words in (columns, values))
    text = f"{head},class,xmin,ymin,xmax,ymax\n{row},nut,1,1,9,9\n"
    write_text(five / "boxes.csv", text)
    assert images_and_boxes(five) == ({"": {"b": 1}}, {}, [])


@pytest.mark.parametrize("numbers", ["0,0,0,0", "0.0,0.0,0,0", ",,,", " ,, ,"])
@pytest.mark.parametrize("name", ["", " "])
def test_a_row_without_class_and_place_is_an_image_without_boxes(five, numbers, name):
    write_table(five / "boxes.csv", "a")
    with open(five / "boxes.csv", "a") as opened:
        opened.write(f"\nb.jpg,64,48,{name},{numbers}\n")
    assert images_and_boxes(five) == ({"": {"a": 1, "b": 0}}, {}, [])


@pytest.mark.parametrize(
    ("sides", "box", "other"),
    [
        ("128,96", "16,12,48,36", 1),
        ("64,48", "16,12,48,36", 0),
        ("32,24", "16,12,48,36", 0),  # of the box
        ("0,0", "16,12,48,36", 0),
        (",", "16,12,48,36", 0),
        ("x,y", "16,12,48,36", 0),
        ("128,96", "0.1,0.1,0.5,0.5", 0),  # parts of the image
    ],
)
def test_a_size_that_is_not_the_images(five, sides, box, other):
    write_table(five / "boxes.csv", "ab", box=f"{sides},nut,{box}")
    with open(five / "boxes.csv", "a") as opened:
        opened.write(f"\na.jpg,{sides},bolt,{box}\n")
    found, counted, warnings = images_and_boxes(five)
    kind = "images of another size than their annotation says"
    assert found == {"": {"a": 2, "b": 1}} and counted == ({kind: 2} if other else {})
    assert len(warnings) == other


def test_a_column_without_a_name_is_neither_size_nor_split(tmp_path):
    """As pandas writes its index."""
    write_image(tmp_path / "a.png")
    write_text(tmp_path / "b.csv", ",file,class,xmin,ymin,xmax,ymax\n7,a.png,nut,1,1,9,9\n")
    data = read_folder(str(tmp_path))
    assert list(data.splits) == [""] and not str(data.counts) and not data.warnings


def test_an_image_that_cannot_be_opened_is_counted_once(five):
    (five / "images/a.jpg").write_bytes(b"no image")
    write_table(five / "boxes.csv", "aabc")
    assert images_and_boxes(five)[1] == {"unreadable images": 1}


@pytest.mark.parametrize("start", ["sep=\n", "sep=\r\n", "SEP=;\r\n"])
def test_a_line_of_excel_with_or_without_the_separator(tmp_path, start):
    write_image(tmp_path / "a.png")
    text = "filename,class,xmin,ymin,xmax,ymax\r\na.png,nut,1,1,9,9\r\n"
    text = text.replace(",", ";") if start.startswith("SEP") else text
    (tmp_path / "boxes.csv").write_bytes((start + text).encode())
    assert boxes_in(read_folder(str(tmp_path)).splits[""].content) == {"a": [("nut", (1, 1, 9, 9))]}


@pytest.mark.parametrize("highest", ["1.002", "1.5"])
def test_parts_of_the_image_may_reach_a_little_over_its_border(five, highest):
    write_table(five / "boxes.csv", "abcd", box="64,48,nut,0.25,0.25,0.75,0.75")
    with open(five / "boxes.csv", "a") as opened:
        opened.write(f"\ne.jpg,64,48,nut,0.5,0.5,{highest},1\n")
    found = boxes_in(read_folder(str(five)).splits[""].content)
    assert found["a"] == [("nut", (16, 12, 48, 36))] and found["e"][0][1][:2] == (32, 24)


def test_parts_of_the_image_beside_pixels(five):
    write_table(five / "boxes.csv", "abc", box="64,48,nut,0.25,0.25,0.75,0.75")
    with open(five / "boxes.csv", "a") as opened:
        opened.write("\nd.jpg,64,48,nut,16,12,40,36\ne.jpg,64,48,,0,0,0,0\n")
    with pytest.raises(InputError, match=r"boxes\.csv, row 5: xmax is 40, but 3 of 4 boxes are"):
        read_folder(str(five))
    write_table(five / "boxes.csv", "abc", box="64,48,nut,16,12,40,36")
    with open(five / "boxes.csv", "a") as opened:
        opened.write("\nd.jpg,64,48,nut,0,0,1,1\ne.jpg,64,48,,0,0,0,0\n")
    assert images_and_boxes(five)[0] == {"": {"a": 1, "b": 1, "c": 1, "d": 1, "e": 0}}
