"""From which checkpoint training starts, and what is said if there is none."""

import io
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.optim.scheduler import LinearLR

from misalign_det.apis import resume
from misalign_det.apis.resume import (
    check_optimizer,
    check_same_start,
    preload_checkpoint,
    resolve_resume,
)
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import CheckpointError, InputError


def start(work_dir, resume=None, **keys):
    cfg = Config({"work_dir": str(work_dir), "launcher": "none", **keys})
    resolve_resume(cfg, resume)
    return cfg.get("resume"), cfg.get("load_from")


def recorded(work_dir, name="epoch_3.pth", exists=True):
    path = work_dir / name
    if exists:
        path.write_bytes(b"")
    (work_dir / "last_checkpoint").write_text(str(path))
    return str(path)


def test_what_training_starts_from(tmp_path):
    assert start(tmp_path) == (None, None)
    assert start(tmp_path, load_from="x.pth") == (None, "x.pth")
    assert start(tmp_path, resume="y.pth", load_from="x.pth") == (True, "y.pth")
    last = recorded(tmp_path)
    assert start(tmp_path) == (None, None)  # nobody asked to resume
    for given in ("", "auto"):
        assert start(tmp_path, given, load_from="x.pth") == (True, last)
    cfg = Config({"work_dir": str(tmp_path), "resume": True, "load_from": "x.pth"})
    resolve_resume(cfg)
    assert (cfg.resume, cfg.load_from) == (True, "x.pth")  # the config's own choice
    cfg = Config({"work_dir": str(tmp_path), "resume": True})
    resolve_resume(cfg)
    assert (cfg.resume, cfg.load_from) == (True, last)


def test_nothing_to_resume(tmp_path, capsys):
    with pytest.raises(
        CheckpointError,
        match=f"nothing to resume in {tmp_path}: no last_checkpoin.*Omit --resume.*--resume auto",
    ):
        start(tmp_path, "")
    assert start(tmp_path, "auto", load_from="x.pth") == (False, None)
    said = capsys.readouterr().err
    assert said == (
        f"there is nothing to resume in {tmp_path}: no last_checkpoint. Training "
        "starts from scratch.\n"
    )
    cfg = Config({"work_dir": str(tmp_path), "resume": True, "launcher": "none"})
    resolve_resume(cfg)  # of the config itself
    assert cfg.resume is False


def test_only_the_first_process_says_that_it_starts_from_scratch(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert start(tmp_path, "auto") == (False, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("given", ["", "auto"])
def test_other_checkpoints_are_not_overwritten(tmp_path, given):
    recorded(tmp_path, "epoch_9.pth", exists=False)
    (tmp_path / "epoch_2.pth").write_bytes(b"")
    with pytest.raises(
        CheckpointError,
        match="last_checkpoint names .*epoch_9.pth, which does "
        "not exist.*--resume .*epoch_2.pth.*--work-dir",
    ):
        start(tmp_path, given)


@pytest.mark.parametrize("given", ["", "auto"])
def test_a_recorded_step_is_no_checkpoint(tmp_path, given, capsys):
    """A run whose loss was not finite before its first checkpoint starts again."""
    for name in ("non_finite_step_7.pth", "non_finite_step_9_rank1.pth"):
        (tmp_path / name).write_bytes(b"")
    if given == "auto":
        assert start(tmp_path, given) == (False, None)
        assert capsys.readouterr().err.endswith("Training starts from scratch.\n")
    else:
        with pytest.raises(CheckpointError, match="Omit --resume to start from scratch"):
            start(tmp_path, given)
    (tmp_path / "epoch_1.pth").write_bytes(b"")
    os.utime(tmp_path / "epoch_1.pth", (0, 0))  # older than they
    with pytest.raises(CheckpointError, match=f"continue with --resume {tmp_path}/epoch_1.pth, or"):
        start(tmp_path, given)


def test_a_best_checkpoint_is_not_one_to_continue_with(tmp_path):
    best, last = tmp_path / "best_coco_bbox_mAP_epoch_3.pth", tmp_path / "epoch_2.pth"
    best.write_bytes(b"")
    said = f"is {best}: start from its weights with --cfg-options load_from={best} and without"
    with pytest.raises(CheckpointError, match=said):
        start(tmp_path, "auto")
    last.write_bytes(b"")
    os.utime(last, (0, 0))
    with pytest.raises(CheckpointError, match=f"is {last}: continue with --resume {last}"):
        start(tmp_path, "auto")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("answer", "agreed"),
    [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)],
)
def test_a_person_is_asked(tmp_path, monkeypatch, answer, agreed):
    screen = Terminal()
    monkeypatch.setattr(resume.sys, "stdin", Terminal(answer))
    monkeypatch.setattr(resume.sys, "stderr", screen)
    if agreed:
        assert start(tmp_path, "") == (False, None)
    else:
        with pytest.raises(CheckpointError, match="nothing to resume"):
            start(tmp_path, "")
    assert screen.getvalue().endswith("Start from scratch? [y/N] ")


def test_of_several_processes_none_asks(tmp_path, monkeypatch):
    monkeypatch.setattr(resume.sys, "stdin", Terminal("y\n"))
    monkeypatch.setattr(resume.sys, "stderr", Terminal())
    with pytest.raises(CheckpointError):
        start(tmp_path, "", launcher="pytorch")


def test_the_start_is_read_before_the_data(tmp_path):
    path = str(tmp_path / "x.pth")
    preload_checkpoint(Config({}))
    # A URL waits for the processes.
    preload_checkpoint(Config({"load_from": "https://example.org/x.pth"}))
    with pytest.raises(CheckpointError, match=f"there is no checkpoint {path}"):
        preload_checkpoint(Config({"load_from": path}))
    torch.save({"state_dict": {}}, path)
    with tensors_only():
        preload_checkpoint(Config({"load_from": path, "resume": False}))
        with pytest.raises(CheckpointError, match="cannot be resumed from"):
            preload_checkpoint(Config({"load_from": path, "resume": True}))


def test_weights_without_optimizer_or_schedules_are_not_resumed_from(tmp_path):
    """As of best_*.pth: both would start anew."""
    path = str(tmp_path / "x.pth")
    whole = dict(
        state_dict={}, message_hub={}, meta=dict(epoch=1, iter=9),
        optimizer={"state": {}, "param_groups": []}, param_schedulers=[{"last_step": 9}],
    )  # fmt: skip

    def preload(schedules, *without, resume=True):
        torch.save({key: value for key, value in whole.items() if key not in without}, path)
        cfg = Config(dict(load_from=path, resume=resume, param_scheduler=schedules))
        with tensors_only():
            preload_checkpoint(cfg)

    schedules = [dict(type="LinearLR", start_factor=0.1, by_epoch=False)]
    preload(schedules)
    for given in (schedules, schedules[0]):
        with pytest.raises(
            CheckpointError, match="x.pth cannot be.*state of param_schedulers, whi"
        ):
            preload(given, "param_schedulers")
        said = "state of optimizer and param_schedulers, .*epoch_N.pth .*last_checkpoint.*load_from"
        with pytest.raises(CheckpointError, match=said) as error:
            preload(given, "optimizer", "param_schedulers")
        assert "\n" not in str(error.value)
        preload(given, "optimizer", "param_schedulers", resume=False)
    for given in (None, []):
        preload(given, "param_schedulers")
        with pytest.raises(CheckpointError, match="but not the state of optimizer, which would"):
            preload(given, "optimizer", "param_schedulers")


def training(param_scheduler=None, auto_scale_lr=False, paramwise_cfg=None, **optimizer):
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01) | optimizer)
    if paramwise_cfg is not None:
        wrapper["paramwise_cfg"] = paramwise_cfg
    return Config(
        dict(
            optim_wrapper=wrapper,
            param_scheduler=param_scheduler or [dict(type="LinearLR", begin=0, end=4)],
            auto_scale_lr=dict(enable=auto_scale_lr, base_batch_size=16),
        )
    )


def saved(**settings):
    return {"meta": {"cfg": training(**settings).pretty_text}}


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ({}, {}),
        ({"betas": [0.8, 0.9]}, {"betas": (0.8, 0.9)}),  # as an option of the command line
        ({"weight_decay": 0.01}, {}),  # its default
        ({"type": torch.optim.AdamW}, {}),
        (
            {"param_scheduler": [dict(type=LinearLR, begin=0, end=4)]},
            {"param_scheduler": [dict(type=f"{LinearLR.__module__}.LinearLR", begin=0, end=4)]},
        ),
        ({"paramwise_cfg": {}}, {}),
        ({"auto_scale_lr": True}, {}),  # compared with the state itself, when it is loaded
    ],
)
def test_a_training_that_can_be_resumed(options, before, monkeypatch):
    monkeypatch.setattr(resume, "print_log", None)  # nothing is said
    check_optimizer(training(**options), saved(**before), "x.pth")


@pytest.mark.parametrize(
    ("options", "before", "said"),
    [
        ({"lr": 0.02}, {}, "optimizer.lr is 0.02 in the config, 0.01 in the checkpoint"),
        ({}, {"weight_decay": 0.1}, "weight_decay is 0.01 in the config, 0.1 in the checkpoint"),
        ({"betas": (0.8, 0.9)}, {}, r"betas is \[0.8, 0.9\] in the config, \[0.9, 0.999\] in the"),
        (
            {"paramwise_cfg": dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))},
            {"paramwise_cfg": dict(custom_keys=dict(backbone=dict(lr_mult=-0.1)))},
            "custom_keys.backbone.lr_mult is 0.1 in the config, -0.1 in the",
        ),
        ({"paramwise_cfg": dict(norm_decay_mult=0)}, {}, "is 0 in the config, not set in the"),
    ],
)
def test_other_settings_of_the_optimizer_would_change_nothing(options, before, said):
    with pytest.raises(InputError, match=f"resuming from x.pth keeps.*{said}.*load_from=FILE"):
        check_optimizer(training(**options), saved(**before), "x.pth")


def test_another_optimizer(tmp_path):
    said = "x.pth holds the state of AdamW, which SGD, the config's.*cannot continue.*load_from="
    with pytest.raises(InputError, match=said):
        check_optimizer(training(type="SGD"), saved(), "x.pth")
    path = str(tmp_path / "x.pth")
    state = {
        "state_dict": {},
        "message_hub": {},
        "meta": {**saved()["meta"], "epoch": 1, "iter": 9},
        "optimizer": {"state": {}, "param_groups": []},
        "param_schedulers": [{"last_step": 9}],
    }
    torch.save(state, path)
    cfg = training(type="SGD")
    cfg.update(load_from=path, resume=True)
    with tensors_only():
        with pytest.raises(InputError, match=said):
            preload_checkpoint(cfg)
        cfg.resume = False  # from the weights alone
        preload_checkpoint(cfg)


def test_another_schedule_is_a_warning(monkeypatch):
    lines = []
    monkeypatch.setattr(resume, "print_log", lambda text, logger, level: lines.append(text))
    check_optimizer(
        training(param_scheduler=[dict(type="LinearLR", begin=0, end=8)]), saved(), "x.pth"
    )
    assert len(lines) == 1 and "keeps its schedules" in lines[0] and "type" not in lines[0]
    assert "param_scheduler.0.end is 8 in the config, 4 in the checkpoint" in lines[0]


@pytest.mark.parametrize("text", [None, "", "no config (", "model = dict()", 3])
def test_checkpoints_without_their_config(text):
    check_optimizer(training(type="SGD"), {"meta": {"cfg": text}}, "x.pth")
    check_optimizer(training(type="SGD"), {}, "x.pth")
    check_optimizer(Config({}), saved(), "x.pth")


def test_the_text_of_a_config_is_not_run(tmp_path):
    text = (
        f"optim_wrapper = dict(optimizer=dict(type='SGD', lr=open({str(tmp_path / 'a')!r}, 'w')))"
    )
    with pytest.raises(InputError, match="lr is 0.01 in the config, open"):
        check_optimizer(training(type="SGD"), {"meta": {"cfg": text}}, "x.pth")
    assert not list(tmp_path.iterdir())


def test_all_machines_start_from_the_same_checkpoint(tmp_path, monkeypatch):
    """Two machines, whose processes are this one in turn."""
    files = [tmp_path / name / "iter_2.pth" for name in ("0", "1", "2")]
    for file, content in zip(files, ("a", "a", "b")):
        file.parent.mkdir()
        file.write_text(content)
    sent = []
    monkeypatch.setattr(resume, "all_gather_object", lambda value: [*sent, value])

    def check(*starts):
        sent.clear()
        for number, start in enumerate(starts):
            monkeypatch.setenv("GROUP_RANK", str(number))
            cfg = Config({"load_from": start and str(start), "resume": True})
            if number == len(starts) - 1:
                check_same_start(cfg)
            else:
                sent.append((number, resume._describe_start(cfg)))

    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    check(None, None)
    check(files[0], files[1])
    check("https://example.org/x.pth", "https://example.org/x.pth")
    with pytest.raises(
        CheckpointError,
        match=r"machine 0 resumes iter_2.pth \(checksum e8b7be43\), machine 1 from scratch\. "
        "Only machine 0 writes.*--work-dir.*--resume FILE",
    ):
        check(files[0], None)
    with pytest.raises(CheckpointError, match="checksum e8b7be43.*checksum 71beeff9"):
        check(files[0], files[2])
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    check(files[0], None)  # of one machine nobody is asked
