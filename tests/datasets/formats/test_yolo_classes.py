"""Which names are of which YOLO labels, where several files have names."""

import pytest
from helpers.data_folders import boxes_in, write_image, write_text

from misalign_det.datasets.formats import read_folder
from misalign_det.errors import InputError

BOX = "0.5 0.5 0.5 0.5\n"
NUT, BOLT = ("nut", (16, 12, 48, 36)), ("bolt", (16, 12, 48, 36))
OTHER_ORDER = "lists of classes in another order than the first, each of the labels nearest to it"


def write(root, lists, labels):
    """A folder with lists of names, and images with text files; "|" stands for a new line."""
    for path, names in lists.items():
        names = names.split("|")
        write_text(root / path, f"names: {names}" if path.endswith("yaml") else "\n".join(names))
    for path, text in labels.items():
        write_image(root / f"{path}.jpg".replace("labels/", "images/"))
        write_text(root / f"{path}.txt", text)
    return str(root)


def read(*args):
    data = read_folder(write(*args))
    splits = data.splits.values()
    return data, {name: own for one in splits for name, own in boxes_in(one.content).items()}


@pytest.mark.parametrize("place", ["", "labels/"])
@pytest.mark.parametrize("name", ["classes.txt", "_darknet.labels", "my.names", "data.yaml"])
def test_each_folder_has_its_list(tmp_path, name, place):
    """As LabelImg writes them, in the order in which the classes were first used."""
    lists = {f"train/{name}": "nut|bolt", f"val/{name}": "bolt|nut"}
    labels = {f"train/{place}a": f"0 {BOX}", f"val/{place}b": f"1 {BOX}"}
    data, boxes = read(tmp_path, lists, labels)
    assert data.classes == ["nut", "bolt"] and boxes == {"a": [NUT], "b": [NUT]}
    assert data.counts.number == {OTHER_ORDER: 1}
    assert data.counts.first[OTHER_ORDER] == f"val/{name}" and len(data.warnings) == 1


def test_lists_of_which_one_is_longer(tmp_path):
    lists = {"cam1/classes.txt": "nut", "cam2/classes.txt": "nut|bolt", "notes/classes.txt": "x|y"}
    data, boxes = read(tmp_path, lists, {"cam1/a": f"0 {BOX}", "cam2/b": f"1 {BOX}"})
    assert data.classes == ["nut", "bolt"] and str(data.counts) == ""
    assert boxes == {"a": [NUT], "b": [BOLT]}
    data, boxes = read(tmp_path, {"classes.txt": "nut|bolt"}, {"cam1/c": f"1 {BOX}"})
    assert boxes["c"] == [BOLT] and str(data.counts) == ""  # the upper one has the name


def test_a_list_that_no_label_uses_has_no_say(tmp_path):
    lists = {"cam/classes.txt": "nut|bolt", "old/classes.txt": "bolt||nut"}
    assert read(tmp_path, lists, {"cam/a": f"0 {BOX}"})[0].classes == ["nut", "bolt"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data.yaml", "train/labels/classes.txt"),
        ("train/data.yaml", "train/images/sub.names"),
        ("classes.txt", "obj.names"),
        ("a.yaml", "b.yaml"),
        ("names/a/classes.txt", "names/b/classes.txt"),
    ],
)
def test_lists_that_contradict_each_other(tmp_path, one, other):
    lists = {one: "screw|nut|bolt", other: "screw|bolt|nut"}
    labels = {"train/labels/a": f"0 {BOX}"}
    with pytest.raises(InputError) as caught:
        read(tmp_path, lists, labels)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / one} and {other} name class 1 'nut' and 'bolt'. Remove")
    assert said.endswith("not of the labels, such as train/labels/a.txt.")
    lists[other] = "screw|nut"
    assert read(tmp_path, lists, labels)[0].classes == ["screw", "nut", "bolt"]


def test_a_list_beside_a_yaml_file_is_replaced_by_it(tmp_path):
    lists = {"data.yaml": "nut|bolt", "classes.txt": "bolt|nut", "predefined_classes.txt": "dog"}
    assert read(tmp_path, lists, {"a": f"0 {BOX}"})[1] == {"a": [NUT]}


@pytest.mark.parametrize(
    "name", ["classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt"]
)
def test_one_list_anywhere(tmp_path, name):
    data, boxes = read(tmp_path, {f"more/{name}": "nut|bolt"}, {"labels/a": f"1 {BOX}"})
    assert data.classes == ["nut", "bolt"] and boxes == {"a": [BOLT]}


@pytest.mark.parametrize("name", ["classes.txt", "_darknet.labels"])
def test_predefined_classes_of_labelimg_are_not_those_that_it_wrote(tmp_path, name):
    lists = {"predefined_classes.txt": "dog|person", f"labels/{name}": "nut|bolt"}
    data, boxes = read(tmp_path, lists, {"labels/a": f"0 {BOX}"})
    assert data.classes == ["nut", "bolt"] and boxes == {"a": [NUT]} and str(data.counts) == ""


def test_a_number_of_a_track_is_no_confidence_and_no_corner(tmp_path):
    bad = ["0 0.5 0.5 0.2 0.2 7", "0 0.5 0.5 0.2 0.2 -1", "0 0.5 0.5 0.2 0.2 0.9 1",
           "0 0.5 0.5 0.2 0.2 0.9 12"]  # fmt: skip
    good = ["0 0.5 0.5 0.5 0.5 0.9", "1 0.25 0.25 0.75 0.25 0.5 0.75",
            "1 0.9 0.9 0.5 0.5 0.7 1"]  # fmt: skip
    lists = {"classes.txt": "nut|bolt"}
    data, boxes = read(tmp_path, lists, {"a": "\n".join(bad + good), "b": f"0 {BOX}" * 1})
    assert boxes["a"] == [NUT, ("bolt", (16, 12, 48, 36)), ("bolt", (32, 24, 57.6, 48))]
    kind = "boxes followed by a number that is no confidence from 0 to 1 (a track id?)"
    assert data.counts.number == {kind: 4, "polygons read as the box around them": 2}
    assert data.counts.first[kind] == f"a.txt: {bad[0]}"
    write_text(tmp_path / "a.txt", "\n".join(bad + bad))
    with pytest.raises(InputError, match=r"cannot be used: 8 boxes followed by a number .* Remove"):
        read_folder(str(tmp_path))
