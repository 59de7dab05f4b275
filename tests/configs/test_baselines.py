"""A baseline's config is mmdet's: this package is not needed to build anything in it.

On EfficientNet-Lite0, which mmdet does not have, it is needed for the backbone and nothing else.
"""

import subprocess
import sys

import mmdet.registry
import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import Registry

from misalign_det.utils import walk

METHODS = "atss autoassign ddod fcos gfl paa retinanet rtmdet tood vfnet yolox".split()
FILES = [path for method in METHODS for path in sorted(CONFIGS.glob(f"{method}_*.py"))]
ON_LITE0 = [path for path in FILES if "_effnet-lite0_" in path.stem]
BASELINES = [path for path in FILES if path not in ON_LITE0]
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
    cfg = Config.fromfile(path, import_custom_modules=False)
    if "_effnet-lite0_" in path:  # a backbone of mmdet's in its place
        assert cfg.model.backbone.pop("type") == "EfficientNetLite0"
        cfg.model.backbone = dict(type="ResNet", depth=18, out_indices=(1, 2, 3))
        cfg.model.neck.in_channels = [128, 256, 512]
    else:
        assert "custom_imports" not in cfg
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
        length = {"epoch_length": 2} if "convert_to_iter_based" in scheduler else {}
        PARAM_SCHEDULERS.build({**scheduler, "optimizer": optimizer, **length})
    print("built", path)
"""


def test_there_is_one_for_each_method_and_data_set():
    names = {path.stem for path in BASELINES}
    assert {"fcos_r50_fpn_1x_coco", "retinanet_r50_fpn_12e_coco"} <= names
    assert {f"{m}_r18_fpn_12e_bccd" for m in ("atss", "fcos", "gfl", "retinanet")} <= names
    assert "retinanet_r50_fpn_12e_voc0712" in names
    on_lite0 = {path.stem for path in ON_LITE0}
    assert {f"{method}_effnet-lite0_fpn_12e_bccd" for method in METHODS} <= on_lite0


def test_no_file_of_a_baseline_names_this_package():
    for path in BASELINES:
        cfg = Config.fromfile(path)
        assert "misalign_det" not in cfg.text, path.name  # its own text and that of its bases
        assert "custom_imports" not in cfg and "custom_hooks" not in cfg


def types_in(cfg):
    """Keys and values of all `type`s, those in lists too."""
    for key, value in walk(cfg):
        if key.split(".")[-1] == "type":
            yield key, value


def test_on_lite0_only_the_backbone_is_of_this_package():
    ours = {
        name
        for registry in vars(mmdet.registry).values()
        if isinstance(registry, Registry)
        for name, kind in registry.module_dict.items()
        if kind.__module__.startswith("misalign_det.")
    }
    assert {"EfficientNetLite0", "JLAAssigner", "TripleHead"} <= ours
    ours.add("CLBalancedNMS")  # found by name in mmcv's NMS module
    for path in ON_LITE0:
        cfg = Config.fromfile(path)
        assert cfg.custom_imports == dict(imports=["misalign_det"]), path.name
        assert "custom_hooks" not in cfg
        found = {(key, value) for key, value in types_in(cfg) if value in ours}
        assert found == {("model.backbone.type", "EfficientNetLite0")}, path.name


@pytest.mark.slow
def test_they_build_where_this_package_cannot_be_imported():
    command = [sys.executable, "-c", BUILD, *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("built ") == len(FILES) >= 20


def test_paa_fits_its_mixture_to_losses_that_hardly_differ():
    """With mmdet's default, 'diag', scikit-learn refuses one in ten of these in float32."""
    cfg = Config.fromfile(CONFIGS / "paa_effnet-lite0_fpn_12e_bccd.py").model
    head = MODELS.build(dict(cfg.bbox_head, train_cfg=cfg.train_cfg))
    labels, gts = torch.zeros(9, dtype=torch.long), torch.zeros(9, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        losses = 50 + 1e-3 * torch.rand(9, generator=generator)
        *_, positives = head.paa_reassign(
            losses, labels, torch.ones(9), torch.ones(9, 4), torch.arange(9), gts, [labels[:, None]]
        )
        assert 0 <= positives <= 9
