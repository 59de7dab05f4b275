"""Unknown types are refused before the work, each with its key; types that there are, are not."""

from pathlib import Path

import mmdet
import pytest
from helpers.paths import CONFIGS
from helpers.stock_configs import CONFIGS as STOCK
from mmengine.config import Config

from misalign_det.apis.config_types import check_types
from misalign_det.errors import ConfigError

CONFIG = CONFIGS / "misalign_effnet-lite0_fpn_12e_bccd.py"
DATASET = "train_dataloader.dataset"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("model", "model"),
        ("train_cfg", "loop"),
        ("optim_wrapper", "optim_wrapper"),
        ("optim_wrapper.optimizer", "optimizer"),
        ("param_scheduler.1", "parameter scheduler"),
        ("default_hooks.timer", "hook"),
        ("default_hooks.mine", "hook"),
        ("visualizer", "visualizer"),
        ("visualizer.vis_backends.0", "vis_backend"),
        ("log_processor", "log_processor"),
        (DATASET, "dataset"),
        (f"{DATASET}.pipeline.2", "transform"),
        ("val_dataloader.dataset.pipeline.1", "transform"),
        ("train_dataloader.sampler", "data sampler"),
        ("train_dataloader.batch_sampler", "data sampler"),
        ("train_dataloader.collate_fn", "function"),
        ("val_dataloader.worker_init_fn", "function"),
        ("val_evaluator", "metric"),
    ],
)
def test_an_unknown_type(key, kind):
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({f"{key}.type": "Foo"})
    with pytest.raises(ConfigError) as error:
        check_types(cfg)
    assert str(error.value).startswith(f"{key}.type: mm")
    assert f" has no {kind} 'Foo'." in str(error.value)


def test_each_has_its_line_and_near_matches():
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({"optim_wrapper.optimizer.type": "AdmW", "val_evaluator.type": "Foo"})
    cfg.custom_hooks = [dict(type="EMAHok")]
    with pytest.raises(ConfigError) as error:
        check_types(cfg)
    found = dict(line.split(".type: ") for line in str(error.value).splitlines())
    assert found.keys() == {"optim_wrapper.optimizer", "val_evaluator", "custom_hooks.0"}
    assert found["optim_wrapper.optimizer"].startswith("mmdet has no optimizer 'AdmW'. Near mat")
    assert "AdamW" in found["optim_wrapper.optimizer"] and "EMAHook" in found["custom_hooks.0"]


def test_only_what_runs():
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({"optim_wrapper.optimizer.type": "Foo", "val_evaluator.type": "Foo"})
    check_types(cfg, modes=("test",))
    cfg.test_dataloader.sampler.type = "Foo"
    with pytest.raises(ConfigError, match=r"^test_dataloader\.sampler\.type: \w+ has no data sam"):
        check_types(cfg, modes=("test",))


def test_inside_wrappers():
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.dataset = dict(
        type="RepeatDataset",
        times=2,
        dataset=dict(type="ConcatDataset", datasets=[dict(type="Foo", pipeline=[])]),
    )
    with pytest.raises(ConfigError, match=r"^train_dataloader\.(dataset\.){2}datasets\.0\.type"):
        check_types(cfg)


def test_types_that_are_left_alone():
    cfg = Config.fromfile(CONFIG)
    cfg.default_hooks.mine = dict(type="Foo", _scope_="elsewhere")
    cfg.default_hooks.timer = None
    cfg.custom_hooks = [dict(type=print)]
    cfg.val_evaluator = dict(type="Evaluator", metrics=[cfg.val_evaluator])
    check_types(cfg)
    cfg.model.type = "Foo"
    cfg.default_scope = "mmyolo"  # whose registries are unknown here
    check_types(cfg)


@pytest.mark.parametrize("name", [*STOCK.values(), "dino/dino-4scale_r50_8xb2-12e_coco.py"])
def test_stock_configs_have_types_that_there_are(name):
    path = Path(mmdet.__file__).parent / ".mim/configs" / name
    check_types(Config.fromfile(path), modes=("train", "val", "test"))
