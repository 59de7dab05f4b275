"""train.py, test.py and replay_step.py as a user runs them, each in a process of its own."""

import math
import pickle
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from helpers.paths import ROOT
from helpers.processes import restore_sigint
from helpers.tiny_detectors import make_detector
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from misalign_det.engine.hooks.atomic_checkpoint_hook import last_good_checkpoint
from misalign_det.engine.hooks.record_invalid_loss_hook import RecordInvalidLossHook
from misalign_det.errors import NonFiniteLossError

TRAINING = """
_base_ = '{base}'
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
part = dict(_base_.val_dataloader.dataset)
test_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[dict(part, indices=2), dict(part, indices=1)]))
test_evaluator = dict(_delete_=True, type='DumpDetResults', out_file_path='all.pkl')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1000, val_interval=1000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001))
"""


@pytest.fixture(scope="module")
def own_environ(environ):
    """The package beside these tests, whichever one is installed."""
    return {**environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def output(own_environ):
    """Run one of the tools in a folder; what it says."""

    def output(cwd, *command):
        done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=own_environ,
                              text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    return output


@pytest.fixture(scope="module")
def detector(tmp_path_factory, shapes):
    """Config and checkpoint of a TripleHead of a few thousand weights."""
    folder = tmp_path_factory.mktemp("detector")
    base, checkpoint = make_detector(folder, "TripleHead")
    config = folder / "tiny.py"
    config.write_text(TRAINING.format(base=base))
    return config, checkpoint


def test_training_is_interrupted_and_says_how_to_go_on(detector, own_environ, tmp_path):
    """Ctrl-C once the first checkpoint is there."""
    command = [sys.executable, ROOT / "tools/train.py", detector[0], "--work-dir", tmp_path / "run"]
    with subprocess.Popen(list(map(str, command)), env=own_environ, cwd=tmp_path, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          preexec_fn=restore_sigint) as process:  # fmt: skip
        while last_good_checkpoint(tmp_path / "run") is None:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        text = process.stderr.read()
    assert process.returncode == 130
    last = (tmp_path / "run/last_checkpoint").read_text()
    assert text.splitlines()[-1] == f"train.py: interrupted. --resume continues from {last}."
    assert "Traceback" not in text
    assert all(
        v.isfinite().all()
        for v in torch.load(last, weights_only=False)["state_dict"].values()
        if v.is_floating_point()
    )


def test_evaluation_of_several_sets_mirrored_too(detector, output, tmp_path):
    config, checkpoint = detector
    output(tmp_path, ROOT / "tools/test.py", config, checkpoint, "--out", "detections.pkl",
           "--tta", "--work-dir", "run")  # fmt: skip
    detections = pickle.loads((tmp_path / "detections.pkl").read_bytes())
    assert len(detections) == 3
    assert detections[0]["pred_instances"]["bboxes"].shape[1] == 4


def test_replay_of_a_saved_step(detector, output, tmp_path):
    config = detector[0]
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    model.train()  # as the runner does: the backbone then keeps its statistics
    with torch.no_grad():
        model.bbox_head.conv_iou.bias.fill_(math.nan)
    hook, runner = (
        RecordInvalidLossHook(),
        SimpleNamespace(model=model, work_dir=str(tmp_path), iter=3),
    )
    batch = demo_mm_inputs(1, image_shapes=[(3, 64, 64)], num_items=[2], num_classes=6)
    batch["data_samples"][0].set_metainfo(dict(img_path="images/0.jpg"))
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, batch)
    with pytest.raises(NonFiniteLossError):
        model.parse_losses(model(**model.data_preprocessor(batch, True), mode="loss"))
    text = output(tmp_path, ROOT / "tools/analysis/replay_step.py", config,
                  "non_finite_step_4.pth")  # fmt: skip
    assert "Images: images/0.jpg" in text
    rows = [line.split() for line in text.splitlines()]
    (iou,) = (row for row in rows if row[:1] == ["loss_iou"])
    assert iou[1:] == ["nan", "nan"]
    (coarse,) = (row for row in rows if row[:1] == ["loss_bbox_coarse"])
    assert float(coarse[1]) > 0 and coarse[1] == coarse[2]
