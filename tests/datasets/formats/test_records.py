"""What names of folders say: splits, and which images and annotations belong together."""

import pytest

from misalign_det.datasets.formats import records
from misalign_det.datasets.formats.records import nearest, split_of_folder


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train_images/1.jpg", "train"),
        ("my val.set/1.jpg", "val"),
        ("obj-train-data/cam 1/1.jpg", "train"),
        ("train_val/1.jpg", "trainval"),
        ("train_test_split/1.jpg", None),
        ("val/train_test_split/1.jpg", "val"),
        ("retrained/train.jpg", None),
    ],
)
def test_splits_in_words_of_folders(path, split):
    assert split_of_folder(path) == split


@pytest.mark.parametrize(
    ("near", "first", "second"),
    [
        ("labels/1.txt", "images/1.jpg", "1.jpg"),
        ("1.txt", "1.jpg", "a/1.jpg"),
        ("a/1.xml", "a/1.jpg", "a/a/1.jpg"),
        ("labels/1.txt", "images/1.jpg", "labels/1.jpg"),
        ("train/xml/1.xml", "train_set/1.jpg", "val/xml/1.jpg"),
        ("xmls/1.xml", "JPEGImages/1.jpg", "SegmentationClass/1.png"),
        ("x/xmls/1.xml", "y/photos/1.jpg", "x/masks/1.png"),
        ("day1/xmls/1.xml", "day1/data/1.jpg", "day2/data/1.jpg"),
        ("day1_xmls/1.xml", "day1_data/1.jpg", "day2_data/1.jpg"),
        ("xmls/1.xml", "data/1.jpg", "data/old/1.jpg"),
        ("xmls/1.xml", "my_images/1.jpg", "my_data/1.jpg"),
        ("xmls/1.xml", "images/1.jpg", "images_old/1.jpg"),
        ("masks/1.xml", "masks/1.png", "images/1.jpg"),
        ("train/xml/1.xml", "train_set/1.jpg", "x/xml/1.jpg"),
    ],
)
def test_which_folder_is_nearest(near, first, second):
    assert nearest([second, first], near) == nearest([first, second], near) == [first]


def test_folders_with_the_same_names_are_compared_once(monkeypatch):
    """Frames of hundreds of cameras are named alike; each pair of folders per name took minutes."""
    compared = []

    def likeness(images, annotations):
        compared.append((images, annotations))
        return original(images, annotations)

    original = records._likeness
    monkeypatch.setattr(records, "_likeness", likeness)
    folders = [f"once/{number}" for number in range(20)]
    for name in range(10):
        texts = [f"{folder}/{name}.txt" for folder in folders]
        for folder in folders:
            image = f"{folder}/{name}.jpg"
            assert nearest(texts, image, images=False) == [f"{folder}/{name}.txt"]
    assert len(compared) == len(set(compared)) == 20 * 20
