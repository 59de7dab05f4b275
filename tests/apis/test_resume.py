"""From which checkpoint training starts, and what is said if there is none."""

import io

import pytest
import torch
from mmengine.config import Config

from misalign_det.apis import resume
from misalign_det.apis.resume import check_same_start, preload_checkpoint, resolve_resume
from misalign_det.engine.checkpoint import tensors_only
from misalign_det.errors import CheckpointError


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
