"""A schedule in steps that is many epochs of a small folder is said before it starts."""

import logging
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn

from misalign_det.apis.cli import build_runner
from misalign_det.engine import training_length
from misalign_det.engine.training_length import long_schedule


class Images:
    metainfo: dict = {}

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return self.number

    def full_init(self):
        pass


def loop(images, steps, batch_sampler=None, kind=IterBasedTrainLoop):
    loader = dict(
        batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=images, batch_sampler=batch_sampler,
    )  # fmt: skip
    made = object.__new__(kind)
    made.dataloader = Runner.build_dataloader(loader)
    made._max_iters = made._max_epochs = steps
    return made


def test_many_epochs():
    assert long_schedule(loop(Images(125), 90000)) == (
        "The schedule counts steps: 90,000 steps of 2 images are 1,440 epochs of the 125 training "
        "images. Shorter: a config in epochs, such as misalign_r50_fpn_12e_own-data; or less "
        "train_cfg.max_iters, and in proportion train_cfg.val_interval, param_scheduler's end and "
        "milestones, and default_hooks.checkpoint.interval."
    )


@pytest.mark.parametrize(("steps", "warned"), [(500, False), (501, True)])
def test_from_100_epochs_on(steps, warned):
    assert bool(long_schedule(loop(Images(10), steps))) == warned


def test_a_schedule_in_epochs():
    assert long_schedule(loop(Images(10), 501, kind=EpochBasedTrainLoop)) is None


def test_several_processes(monkeypatch):
    monkeypatch.setattr(training_length, "get_world_size", lambda: 8)
    assert "90,000 steps of 16 images are 11,520 epochs" in long_schedule(loop(Images(125), 90000))


def test_batches_by_aspect_ratio_and_repeated_images():
    batches = dict(type="mmdet.AspectRatioBatchSampler")
    assert "1,440 epochs" in long_schedule(loop(Images(125), 90000, batches))
    both = ConcatDataset.__new__(ConcatDataset)
    both.datasets, both.cumulative_sizes = [Images(100), Images(25)], [100, 125]
    both._fully_initialized = True
    repeated = RepeatDataset.__new__(RepeatDataset)
    repeated.dataset, repeated.times, repeated._fully_initialized = both, 3, True
    repeated._ori_len = 125
    assert len(repeated) == 375
    assert "1,440 epochs of the 125 training images" in long_schedule(loop(repeated, 90000))


def test_it_is_logged_before_the_first_step(tmp_path, monkeypatch):
    model = nn.Linear(1, 1)
    monkeypatch.setattr("misalign_det.apis.console.Runner.build_model", lambda self, cfg: model)
    made = loop(Images(125), 90000)
    cfg = dict(
        model=dict(type="Model"), work_dir=str(tmp_path), experiment_name="long", launcher="none",
        default_scope="mmdet", train_cfg=dict(by_epoch=False, max_iters=90000),
        train_dataloader=dict(dataset=[], sampler=None, batch_size=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
    )  # fmt: skip
    runner = build_runner(Config(cfg))
    lines = []
    runner.logger.addHandler(SimpleNamespace(level=logging.WARNING, handle=lines.append))
    assert runner.build_train_loop(made) is made
    (record,) = lines
    assert record.levelname == "WARNING" and "1,440 epochs" in record.getMessage()
