"""Checkpoints named torchvision://..., open-mmlab://..., and what is said where there are none."""

import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.paths import CONFIGS
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from misalign_det.apis.resume import check_pretrained
from misalign_det.engine import named_weights
from misalign_det.engine.checkpoint import read_checkpoint
from misalign_det.engine.named_weights import (
    check_weights,
    torchvision_installation,
    torchvision_url,
)
from misalign_det.errors import CheckpointError

RESNET50 = "https://download.pytorch.org/models/resnet50-0676ba61.pth"


@pytest.fixture
def no_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)


@pytest.fixture
def asked(monkeypatch):
    """The addresses that mmengine would download from."""
    addresses = []

    def load_from_http(filename, map_location=None):
        addresses.append(filename)
        return {"conv1.weight": torch.zeros(1)}

    schemes = {**CheckpointLoader._schemes, "https://": load_from_http}
    monkeypatch.setattr(CheckpointLoader, "_schemes", schemes)
    return addresses


@pytest.mark.parametrize("scheme", ["torchvision", "modelzoo"])
def test_weights_of_torchvision_without_torchvision(scheme, no_torchvision, asked):
    weights = CheckpointLoader.load_checkpoint(f"{scheme}://resnet50", map_location="cpu")
    assert list(weights) == ["conv1.weight"] and asked == [RESNET50]


def test_all_configs_name_weights_that_there_are(no_torchvision):
    for path in sorted(CONFIGS.glob("*.py")):
        check_pretrained(Config.fromfile(path))


def test_weights_that_only_torchvision_knows(no_torchvision):
    with pytest.raises(CheckpointError) as error:
        check_weights("torchvision://resnet50.imagenet1k_v2")
    assert str(error.value) == (
        "torchvision://resnet50.imagenet1k_v2 is not in mmengine's list of weights. Any others "
        f"need torchvision, which is not installed: {torchvision_installation()}."
    )


def test_a_torchvision_of_another_torch(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(named_weights.importlib, "import_module", broken)
    assert torchvision_url("torchvision://resnet50") == RESNET50
    with pytest.raises(CheckpointError, match=r"cannot be imported \(operator torchvision::nms"):
        torchvision_url("torchvision://resnet50.imagenet1k_v2")


def test_with_torchvision_all_its_weights(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace())
    urls = {"resnet50.imagenet1k_v2": "https://there/v2.pth"}
    monkeypatch.setattr(named_weights, "get_torchvision_models", lambda: urls)
    assert torchvision_url("torchvision://resnet50.imagenet1k_v2") == "https://there/v2.pth"
    with pytest.raises(CheckpointError, match=r"no weights torchvision://resnet50\.v2\. Near mat"):
        torchvision_url("torchvision://resnet50.v2")


@pytest.mark.parametrize(
    ("torch_version", "cuda", "command"),
    [
        ("2.1.2", "12.1", "pip install torchvision==0.16.2"),
        ("2.6.0+cu124", "12.4", "pip install torchvision==0.21.0"),
        ("2.13.0", "13.0", "pip install torchvision==0.28.0"),
        (
            "2.13.0+cpu",
            None,
            "pip install torchvision==0.28.0, a build without CUDA like this torch",
        ),
        ("3.0.0", "14.0", "pip install torchvision"),
    ],
)
def test_the_torchvision_of_a_torch(monkeypatch, torch_version, cuda, command):
    monkeypatch.setattr(torch, "__version__", torch_version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert torchvision_installation() == command


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open-mmlab://resnet50_caff", "no weights open-mmlab://resnet50_caff. Near matches: "),
        ("mmcls://vgg111", "no weights mmcls://vgg111. Near matches: mmcls://vgg11"),
        ("torchvision://resnet51", "mmengine's list of weights. Near matches: torchvision://resn"),
        ("/nowhere.pth", "there is no checkpoint /nowhere.pth"),
    ],
)
def test_weights_that_there_are_not(name, message, no_torchvision):
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=dict(checkpoint=name)))))
    with pytest.raises(CheckpointError) as error:
        check_pretrained(cfg)
    said = str(error.value)
    assert said.startswith("model.backbone.init_cfg.checkpoint: ") and message in said
    assert said.endswith(" (model.backbone.init_cfg=None trains without)")
    with pytest.raises(CheckpointError, match="there (is|are) no|list of weights"):
        read_checkpoint(name)


@pytest.mark.parametrize(
    "name",
    ["open-mmlab://detectron/resnet50_caffe", "openmmlab://resnext101_64x4d", "mmcls://vgg11",
     "https://example.org/x.pth", "s3://bucket/x.pth"],
)  # fmt: skip
def test_weights_that_may_be_there(name):
    check_weights(name)


@pytest.mark.parametrize("part", [dict(pretrained="/no.pth"), dict(teacher_ckpt="/no.pth")])
def test_other_keys_of_a_model_that_name_weights(part):
    (key,) = part
    with pytest.raises(CheckpointError, match=f"^model.{key}: there is no checkpoint /no.pth$"):
        check_pretrained(Config(dict(model=part)))
    check_pretrained(Config(dict(model={key: None})))
