"""Datasets are found through any wrappers, under the key that changes them."""

from mmengine.config import Config

from misalign_det.utils import leaf_datasets


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
