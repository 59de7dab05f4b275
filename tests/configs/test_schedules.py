"""The learning rate that each schedule gives, step by step, as the papers and the tables say."""

import math

import pytest
import torch
from helpers.paths import CONFIGS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from misalign_det.apis.config_lookup import OPTIONS_36E

BASES = CONFIGS / "_base_"
register_all_modules()


def learning_rates(name, steps_per_epoch=None, options=None):
    """The rate at each training step of a schedule, or of a config, counted from 0."""
    path = BASES / "schedules" / f"{name}.py"
    cfg = Config.fromfile(path if path.is_file() else CONFIGS / f"{name}.py")
    cfg.merge_from_dict(dict(options or {}))
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    length = dict(epoch_length=steps_per_epoch)
    schedulers = [
        PARAM_SCHEDULERS.build(
            {**part, "optimizer": wrapper, **(length if "convert_to_iter_based" in part else {})}
        )
        for part in cfg.param_scheduler
    ]
    steps = cfg.train_cfg.get("max_iters") or cfg.train_cfg.max_epochs * steps_per_epoch
    rates = []
    for step in range(steps):
        rates.append(wrapper.get_lr()["lr"][0])
        ends_epoch = steps_per_epoch and (step + 1) % steps_per_epoch == 0
        for scheduler in schedulers:
            if not scheduler.by_epoch or ends_epoch:
                scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("options", "epochs", "drops"), [(None, 12, (8, 11)), (OPTIONS_36E, 36, (24, 33))]
)
def test_bccd(options, epochs, drops):
    rates = learning_rates("bccd_12e", steps_per_epoch=26, options=options)
    assert len(rates) == 26 * epochs
    assert rates[0] == pytest.approx(0.02 * 0.001)
    assert rates[:26] == sorted(rates[:26]) and rates[25] == pytest.approx(0.02)
    assert all(r == pytest.approx(0.02) for r in rates[26 : 26 * drops[0]])
    assert all(r == pytest.approx(0.002) for r in rates[26 * drops[0] : 26 * drops[1]])
    assert all(r == pytest.approx(0.0002) for r in rates[26 * drops[1] :])


@pytest.mark.parametrize(
    ("name", "steps", "drops"),
    [
        ("schedule_1x_90k", 90000, (60000, 80000)),
        ("schedule_2x_180k", 180000, (120000, 160000)),
        ("voc_45k", 45000, (30000, 40000)),
    ],
)
def test_steps(name, steps, drops):
    rates = learning_rates(name)
    assert len(rates) == steps
    # mmengine's `end` is the first step at full rate minus one
    assert all(r == pytest.approx(0.00333) for r in rates[:499])
    assert all(r == pytest.approx(0.01) for r in rates[500 : drops[0]])
    assert all(r == pytest.approx(0.001) for r in rates[drops[0] : drops[1]])
    assert all(r == pytest.approx(0.0001) for r in rates[drops[1] :])


@pytest.mark.parametrize("steps_per_epoch", [2, 26, 1000])
def test_own_data(steps_per_epoch):
    """Of a folder of any size the first epoch is the warm-up, and no more."""
    rates = learning_rates("misalign_r50_fpn_12e_own-data", steps_per_epoch)
    assert len(rates) == 12 * steps_per_epoch
    assert rates[0] == pytest.approx(0.01 * 0.001)
    assert rates[:steps_per_epoch] == sorted(rates[:steps_per_epoch])
    for first, last, rate in ((1, 8, 0.01), (8, 11, 0.001), (11, 12, 0.0001)):
        epochs = rates[first * steps_per_epoch : last * steps_per_epoch]
        assert epochs == pytest.approx([rate] * len(epochs))


def test_own_data_scales_its_rate_to_the_batch_size():
    cfg = Config.fromfile(BASES.parent / "misalign_r50_fpn_12e_own-data.py")
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)


def test_adamw():
    rates = learning_rates("adamw_12e", steps_per_epoch=26)
    assert len(rates) == 26 * 12
    assert rates[0] == pytest.approx(5e-4 * 0.01, rel=0.01)
    assert rates[:50] == sorted(rates[:50])  # the warm-up, on top of the cosine
    cosine = [2.5e-4 * (1 + math.cos(math.pi * step / 312)) for step in range(312)]
    assert rates[50:] == pytest.approx(cosine[50:], rel=1e-3)
    assert rates[-1] < 1e-7


@pytest.mark.parametrize("name", [path.stem for path in sorted(BASES.glob("schedules/*.py"))])
def test_the_optimizer_and_the_last_validation(name):
    cfg = Config.fromfile(BASES / "schedules" / f"{name}.py")
    optimizer = dict(cfg.optim_wrapper.optimizer, lr=None)
    assert optimizer == (
        dict(type="AdamW", lr=None, weight_decay=0.05)
        if name.startswith("adamw_")
        else dict(type="SGD", lr=None, momentum=0.9, weight_decay=1e-4)
    )
    length = cfg.train_cfg.get("max_iters") or cfg.train_cfg.max_epochs
    assert length % cfg.train_cfg.val_interval == 0, "the last weights are evaluated"
