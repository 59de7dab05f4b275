"""Datasets are found through any wrappers, under the key that changes them."""

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config

from misalign_det.utils import class_names, dataset_classes, leaf_datasets


def test_a_dataset_without_wrapper_is_its_own_leaf():
    data = dict(type="CocoDataset", ann_file="a.json")
    assert list(leaf_datasets(data, "train_dataloader.dataset")) == [
        ("train_dataloader.dataset", data)
    ]


def test_wrappers_of_one_and_of_many():
    balanced = dict(type="ClassBalancedDataset", dataset=dict(ann_file="b.json"))
    joined = dict(type="ConcatDataset", datasets=[dict(ann_file="a.json"), balanced])
    cfg = Config(dict(dataset=dict(type="RepeatDataset", dataset=joined)))
    found = dict(leaf_datasets(cfg.dataset))
    assert {key: data.ann_file for key, data in found.items()} == {
        "dataset.dataset.datasets.0": "a.json",
        "dataset.dataset.datasets.1.dataset": "b.json",
    }
    found["dataset.dataset.datasets.0"].ann_file = "c.json"
    assert cfg.dataset.dataset.datasets[0].ann_file == "c.json"


def test_nothing_is_no_dataset():
    assert list(leaf_datasets({})) == []


@pytest.mark.parametrize("kind", ["CocoDataset", "mmdet.CocoDataset", CocoDataset])
def test_classes_of_a_dataset(kind):
    assert dataset_classes(dict(type=kind, metainfo=dict(classes=("a", "b")))) == ("a", "b")
    assert dataset_classes(dict(type=kind, metainfo=dict(classes="ab"))) == ("ab",)
    assert len(dataset_classes(dict(type=kind))) == 80  # COCO's own


def test_a_dataset_of_somebody_elses():
    assert dataset_classes(dict(type="NoSuchDataset")) is None
    assert dataset_classes(dict(type="NoSuchDataset", metainfo=dict(classes=["a"]))) == ("a",)


def test_a_single_class_may_stand_as_a_string():
    assert class_names("disc") == ("disc",)
    assert class_names(["disc", "box"]) == ("disc", "box")
