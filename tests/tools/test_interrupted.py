"""A training that is killed at any step and resumed is the training that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers.paths import ROOT

TRAIN = [sys.executable, ROOT / "tools/train.py"]
EPOCHS = """
_base_ = '{tiny}'
train_dataloader = dict(_delete_=True, batch_size=1, num_workers=2, persistent_workers={persistent},
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset={{{{_base_.train_dataloader.dataset}}}})
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=5, val_interval=5)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
randomness = dict(seed=3)
model = dict(train_cfg=dict(assigner=dict(weighted_until=0.6)))
"""


def losses(work_dir):
    """Step -> all losses of it; what was trained again after a resume counts."""
    rows = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            row = json.loads(line) if line.endswith("}") else {}
            if "loss_cls" in row:
                rows[row["step"]] = {k: v for k, v in row.items() if k.startswith("loss")}
    return rows


@pytest.fixture(scope="module", params=[True, False], ids=["persistent", "new workers"])
def uninterrupted(request, tiny_config, call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    config = folder / "epochs.py"
    config.write_text(EPOCHS.format(tiny=tiny_config, persistent=request.param))
    call([*TRAIN, config, "--work-dir", folder / "run"], folder)
    return config, losses(folder / "run")


@pytest.mark.slow
def test_killed_at_a_random_step_and_resumed(uninterrupted, call, environ, tmp_path):
    config, expected = uninterrupted
    assert sorted(expected) == list(range(1, 21))
    when = random.SystemRandom().randint(5, 18)
    command = [*TRAIN, config, "--work-dir", tmp_path / "run"]
    with subprocess.Popen(
        list(map(str, command)), env=environ, cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        while len(losses(tmp_path / "run")) < when:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    before = losses(tmp_path / "run")
    assert len(before) < 20
    text = call([*command, "--resume"], tmp_path)
    assert "resumed epoch: " in text
    assert losses(tmp_path / "run") == expected, f"killed after step {when}"
