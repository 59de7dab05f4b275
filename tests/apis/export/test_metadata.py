"""The size to which an exported file's images are resized, whatever wraps the dataset."""

import json
from types import SimpleNamespace

import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets.transforms import PackDetInputs, Resize
from mmengine.config import Config

from misalign_det.apis.export.metadata import describe, resize_to
from misalign_det.errors import InputError


def config(*kinds):
    steps = [dict(type=kind, scale=(9, 9)) for kind in kinds]
    bare, inner = dict(type="CocoDataset"), dict(type="CocoDataset", pipeline=steps)
    repeated = dict(type="RepeatDataset", times=2, dataset=inner)
    joined = dict(type="ConcatDataset", datasets=[bare, repeated])
    return Config(dict(test_dataloader=dict(dataset=joined)))


def test_another_size_inside_wrappers():
    cfg = config("Resize", "PackDetInputs")
    resize_to(cfg, (64, 48))
    steps = cfg.test_dataloader.dataset.datasets[1].dataset.pipeline
    assert [step.scale for step in steps] == [(64, 48), (9, 9)]


def test_steps_that_are_classes():
    """As in mmengine's new-style configs."""
    cfg = config(LoadImageFromFile, Resize, "mmdet.Resize", PackDetInputs)
    resize_to(cfg, (64, 48))
    steps = cfg.test_dataloader.dataset.datasets[1].dataset.pipeline
    assert [step.scale for step in steps] == [(9, 9), (64, 48), (64, 48), (9, 9)]
    model = SimpleNamespace(dataset_meta={"classes": ("a",)})
    said = describe(cfg, model, SimpleNamespace(nms=False, config="x.py"))["preprocessing"]
    assert json.loads(said) == [{"type": "Resize", "scale": [64, 48]}] * 2


@pytest.mark.parametrize(
    ("kinds", "said"), [(["PackDetInputs"], "has no Resize"), ([], "has a pipeline")]
)
def test_nothing_to_resize(kinds, said):
    with pytest.raises(InputError, match=said):
        resize_to(config(*kinds), (64, 48))
