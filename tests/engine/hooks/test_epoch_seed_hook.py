"""EpochSeedHook: what an epoch draws depends on the seed and the epoch alone."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.registry import HOOKS
from torch.utils.data import DataLoader

import misalign_det  # noqa: F401
from misalign_det.engine.hooks import epoch_seed_hook


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def epoch(number, seed=7, max_epochs=3, workers=0):
    hook = HOOKS.build(dict(type="EpochSeedHook"))
    loader = SimpleNamespace(num_workers=workers, _iterator="workers of before", worker_init_fn=0)
    runner = SimpleNamespace(max_epochs=max_epochs, epoch=number, seed=seed,
                             train_dataloader=loader)  # fmt: skip
    hook.before_train_epoch(runner)
    return loader


def test_an_epoch_draws_the_same_whatever_was_drawn_before():
    epoch(1)
    first = draw()
    draw()
    epoch(1)
    assert draw() == first
    for number, seed in ((0, 7), (2, 7), (1, 8)):
        epoch(number, seed)
        assert not set(draw()) & set(first)


def test_no_two_epochs_share_a_workers_seed(monkeypatch):
    """A worker's seed is the epoch's and its own number; so is its number on another process."""
    seeds = []
    monkeypatch.setattr(epoch_seed_hook, "set_random_seed", seeds.append)
    epoch(0)
    epoch(1)
    assert seeds == [7 + 100_003, 7 + 2 * 100_003]


def test_training_without_epochs_is_left_alone():
    random.seed(1)
    loader = epoch(0, max_epochs=1, workers=2)
    value = random.random()
    random.seed(1)
    assert random.random() == value
    assert loader._iterator == "workers of before"
    epoch(0, max_epochs=2, workers=2)
    assert random.random() != value


def test_workers_start_anew_with_seeds_of_the_epoch(monkeypatch):
    monkeypatch.setattr(epoch_seed_hook, "get_rank", lambda: 1)
    loader = epoch(0, workers=2)
    assert loader._iterator is None
    seen = []
    for worker in (0, 1):
        loader.worker_init_fn(worker)
        seen.append(np.random.get_state()[1][0])
    # mmengine: number of workers * rank + worker + seed
    assert seen == [2 + 7 + 100_003, 3 + 7 + 100_003]
    alone = epoch(0, workers=0)
    assert alone._iterator == "workers of before" and alone.worker_init_fn == 0


@pytest.mark.parametrize("persistent", [False, True])
def test_a_real_loader_takes_it(persistent):
    class Numbers:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return random.random()

    hook = HOOKS.build(dict(type="EpochSeedHook"))
    loader = DataLoader(Numbers(), num_workers=1, persistent_workers=persistent)
    runner = SimpleNamespace(max_epochs=2, epoch=1, seed=7, train_dataloader=loader)
    drawn = []
    for runner.epoch in (0, 1, 0):
        hook.before_train_epoch(runner)
        drawn.append([float(value) for value in loader])
    assert drawn[0] == drawn[2] != drawn[1]
