"""The pages of configs/: the config for one's own data builds, options and names are right."""

import argparse
import re
import shlex

import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction

from misalign_det.apis.config_lookup import OPTIONS_36E, packaged_configs
from misalign_det.apis.config_options import merge_options
from misalign_det.apis.model_check import check_model

README, BCCD, STUDIES = (
    (CONFIGS / f"{page}.md").read_text() for page in ("README", "bccd", "studies")
)


def test_the_config_for_ones_own_data_builds(tmp_path):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "mine.py"
    path.write_text(snippet.replace("_base_ = '", f"_base_ = '{CONFIGS}/"))
    cfg = Config.fromfile(path)
    check_model(cfg.model)
    cfg.model.backbone.init_cfg = None
    assert MODELS.build(cfg.model).bbox_head.num_classes == 2
    for split, file in (("train", "train.json"), ("val", "val.json"), ("test", "val.json")):
        data = cfg[f"{split}_dataloader"].dataset
        assert (data.data_root, data.ann_file, data.data_prefix.img) == (
            "data/mine/",
            file,
            "images/",
        )
        assert data.metainfo.classes == ("bolt", "nut")
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == "data/mine/val.json"
    assert cfg.auto_scale_lr.base_batch_size == 16


def test_the_options_of_36_epochs_are_those_of_the_old_name():
    (line,) = re.findall(r'^EPOCHS_36="(.*)"$', BCCD, re.MULTILINE)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    args = parser.parse_args(["--cfg-options", *shlex.split(line)])
    assert args.cfg_options == OPTIONS_36E


@pytest.mark.parametrize("method", ["atss", "jla_triplehead", "ddod", "yolox"])
def test_the_options_for_resnet18_build_it(method):
    (text,) = re.findall(r'^RESNET18="(.*?)"$', README, re.MULTILINE | re.DOTALL)
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    options = parser.parse_args(["--cfg-options", *text.split()]).cfg_options
    cfg = Config.fromfile(CONFIGS / f"{method}_effnet-lite0_fpn_12e_bccd.py")
    neck, lite0 = cfg.model.neck.copy(), MODELS.build(cfg.model)
    model = merge_options(cfg, options).model
    small = Config.fromfile(CONFIGS / "_base_/models/fcos_r18_fpn.py").model
    assert model.data_preprocessor.mean == small.data_preprocessor.mean
    assert model.data_preprocessor.std == small.data_preprocessor.std
    assert model.neck == {**neck, "in_channels": [128, 256, 512]}
    assert model.backbone.init_cfg.checkpoint == "torchvision://resnet18"
    detector = MODELS.build(model)
    detector.train()
    frozen = {name for name, part in detector.backbone.named_parameters() if not part.requires_grad}
    trained = {name for name, _ in detector.backbone.named_parameters()} - frozen
    assert {name.split(".")[0] for name in trained} == {"layer2", "layer3", "layer4"}
    assert not any("bn" in name for name in trained)
    features = detector.extract_feat(torch.zeros(1, 3, 288, 288))
    lite0.eval()
    assert [f.shape for f in features] == [
        f.shape for f in lite0.extract_feat(torch.zeros(1, 3, 288, 288))
    ]


def names_in(text):
    """Names of configs in backticks or commands, {a,b} written out."""
    for name in re.findall(r"[\w{},-]+_fpn_[\w{},-]+", text):
        names = [name]
        while any("{" in n for n in names):
            names = [
                n.replace(found[0], choice, 1)
                for n in names
                for found in [re.search(r"\{([^{}]*)\}", n)]
                for choice in found[1].split(",")
            ]
        yield from names


def test_every_config_is_named_and_every_name_is_a_config():
    text = (README + BCCD + STUDIES).replace("${model}", "")  # of the loops in the commands
    named = {name for name in names_in(text) if not name.startswith("_")}
    assert named - {"misalign_r50_fpn_12e_mine"} == set(packaged_configs())
