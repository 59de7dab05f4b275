"""What a tool prints, and what only the log file has."""

import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from misalign_det.apis.cli import build_runner
from misalign_det.apis.console import leave_out_notices
from misalign_det.engine.checkpoint import tensors_only

FILE_ONLY = (
    "System environment:",
    "Config:",
    "Hooks will be executed",
    "is skipped since its requires_grad=False",
    "paramwise_options -- ",
)


def make_runner(tmp_path, monkeypatch, train_cfg=None):
    """Of a config with a frozen layer and an option for parameters, before the first step."""
    train_cfg = train_cfg or dict(by_epoch=True, max_epochs=1)
    frozen = nn.BatchNorm2d(1).requires_grad_(False)
    model = nn.ModuleDict(dict(frozen=frozen, layer=nn.Linear(1, 1)))
    monkeypatch.setattr("misalign_det.apis.console.Runner.build_model", lambda self, cfg: model)
    cfg = dict(
        model=dict(type="Model"), work_dir=str(tmp_path), experiment_name="run", launcher="none",
        default_scope="mmdet", train_cfg=train_cfg,
        train_dataloader=dict(
            dataset=[0], sampler=dict(type="DefaultSampler", shuffle=False), batch_size=1
        ),
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=0.1, weight_decay=0.1),
            paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
        ),
    )  # fmt: skip
    runner = build_runner(Config(cfg))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    return runner


def test_the_log_file_has_everything_and_the_console_the_progress(tmp_path, monkeypatch, capsys):
    runner = make_runner(tmp_path, monkeypatch)
    runner.logger.info("Epoch(train) [1][1/2]")
    print_log("a warning of the run", logger="current", level=logging.WARNING)
    printed = capsys.readouterr().out
    (log,) = Path(runner.log_dir).glob("*.log")
    written = log.read_text()
    assert "Epoch(train) [1][1/2]" in printed and "a warning of the run" in printed
    assert str(log) in printed
    for part in FILE_ONLY:
        assert part in written and part not in printed, part
    assert len(printed.splitlines()) < 10 < len(written.splitlines())


def test_notices_of_libraries(capsys):
    leave_out_notices()
    leave_out_notices()
    notice = 'Failed to search registry with scope "mmdet" in the "function" registry tree.'
    MMLogger.get_current_instance().warning(notice)
    MMLogger.get_current_instance().warning("no image has an object")
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("torch.meshgrid: in an upcoming release, it will be required", stacklevel=1)
        warnings.warn(
            "'pin_memory' argument is set as true but no accelerator is found", stacklevel=1
        )
        warnings.warn("another", stacklevel=1)
    said = capsys.readouterr()
    assert "Failed to search" not in said.out + said.err
    assert "no image has an object" in said.out + said.err
    assert [str(w.message) for w in caught] == ["another"]


def test_pycocotools_prints_its_figures_only(tmp_path, capsys):
    box = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
    images, classes = [dict(id=1, width=9, height=9)], [dict(id=1, name="cell")]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(dict(images=images, categories=classes, annotations=[box])))
    leave_out_notices()
    truth = COCO(path)
    evaluation = COCOeval(truth, truth.loadRes([{**box, "score": 1.0}]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    assert not capsys.readouterr().out
    evaluation.summarize()
    assert len(capsys.readouterr().out.splitlines()) == 12
    truth.download()  # without a folder
    assert "Please specify target directory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train_cfg", "said"),
    [
        (dict(by_epoch=True, max_epochs=2), "2 of 2 epochs. For more, set train_cfg.max_epochs."),
        (dict(by_epoch=False, max_iters=9), "9 of 9 steps. For more, set train_cfg.max_iters."),
        (dict(by_epoch=True, max_epochs=3), None),
        (dict(by_epoch=False, max_iters=10), None),
    ],
)
def test_nothing_left_to_train(tmp_path, monkeypatch, train_cfg, said):
    printed = resumed(make_runner(tmp_path, monkeypatch, train_cfg), monkeypatch, lr=0.1)
    assert said is None or f"x.pth has finished {said}" in printed
    assert ("Nothing is left to train" in printed) == (said is not None)
    assert "learning rate" not in printed


def test_a_learning_rate_that_the_checkpoint_replaces(tmp_path, monkeypatch):
    """As of --auto-scale-lr, which no config shows; and 0.1 with a schedule at 0.01."""
    runner = make_runner(tmp_path, monkeypatch, dict(by_epoch=True, max_epochs=3))
    printed = resumed(runner, monkeypatch, lr=0.2)
    assert "The learning rate stays 0.2, that of" in printed and "x.pth: 0.1, which the" in printed
    runner = make_runner(tmp_path / "b", monkeypatch, dict(by_epoch=True, max_epochs=3))
    assert "learning rate" not in resumed(runner, monkeypatch, lr=0.01, initial_lr=0.1)


def resumed(runner, monkeypatch, **rates):
    """The warnings when a runner resumes after two epochs of other learning rates."""
    state = runner.optim_wrapper.state_dict()
    for group in state["param_groups"]:
        group.update(rates)
    path = f"{runner.work_dir}/x.pth"
    hub = runner.message_hub.state_dict()
    meta = dict(epoch=2, iter=9)
    torch.save(dict(state_dict=runner.model.state_dict(), optimizer=state, message_hub=hub,
                    meta=meta), path)  # fmt: skip
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    said = []
    monkeypatch.setattr(runner.logger, "warning", said.append)
    with tensors_only():
        runner.resume(path)
    return " ".join(said)
