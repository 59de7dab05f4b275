"""A baseline's config is mmdet's: this package is not needed to build anything in it."""

import subprocess
import sys

import pytest
from helpers.paths import CONFIGS
from mmengine.config import Config

BASELINES = [
    path
    for method in ("atss", "fcos", "gfl", "retinanet")
    for path in sorted(CONFIGS.glob(f"{method}_*.py"))
]
BUILD = """
import sys

sys.modules["misalign_det"] = None  # importing it is an error

import torch
from mmdet.registry import HOOKS, MODELS, TRANSFORMS, VISUALIZERS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

register_all_modules()
for path in sys.argv[1:]:
    cfg = Config.fromfile(path)
    cfg.model.backbone.init_cfg = None
    MODELS.build(cfg.model)
    for split in ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"].dataset
        for leaf in dataset.get("datasets", [dataset]):
            for step in leaf.pipeline:
                TRANSFORMS.build(step)
    VISUALIZERS.build(cfg.visualizer)
    for hook in [*cfg.default_hooks.values(), *cfg.get("custom_hooks", ())]:
        HOOKS.build(hook)
    optimizer = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    for scheduler in cfg.param_scheduler:
        PARAM_SCHEDULERS.build({**scheduler, "optimizer": optimizer})
    print("built", path)
"""


def test_there_is_one_for_each_method_and_data_set():
    names = {path.stem for path in BASELINES}
    assert {"fcos_r50_fpn_1x_coco", "retinanet_r50_fpn_12e_coco"} <= names
    assert {f"{m}_r18_fpn_12e_bccd" for m in ("atss", "fcos", "gfl", "retinanet")} <= names
    assert "retinanet_r50_fpn_12e_voc0712" in names


def test_no_file_of_a_baseline_names_this_package():
    for path in BASELINES:
        cfg = Config.fromfile(path)
        assert "misalign_det" not in cfg.text, path.name  # its own text and that of its bases
        assert "custom_imports" not in cfg and "custom_hooks" not in cfg


@pytest.mark.slow
def test_they_build_where_this_package_cannot_be_imported():
    command = [sys.executable, "-c", BUILD, *map(str, BASELINES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("built ") == len(BASELINES) >= 9
