"""A full disk while saving: what the user sees, and that everything saved before is still there.

`/dev/full` stands for the disk: writing to it fails with the kernel's own "no space left".
"""

import builtins
import errno
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_file_backend
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader, TensorDataset

from misalign_det.apis.cli import errors_in_one_line
from misalign_det.engine.checkpoint import check_checkpoint, tensors_only
from misalign_det.engine.hooks import atomic_checkpoint_hook
from misalign_det.engine.hooks.atomic_checkpoint_hook import (
    AtomicCheckpointHook,
    AtomicLocalBackend,
    describe_write_error,
    is_full_disk,
    last_good_checkpoint,
)
from misalign_det.errors import CheckpointSaveError

pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="needs /dev/full, the kernel's always-full disk"
)


class Line(BaseModel):
    """y = w x, so that there is something to train and save."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, mode="tensor"):
        return {"loss": ((self.weight * x) ** 2).mean()} if mode == "loss" else [x]


class Rising(BaseMetric):
    """An accuracy that is better each time."""

    calls = 0

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        Rising.calls += 1
        return {"acc": Rising.calls / 100}


class FillDisk(AtomicCheckpointHook):
    """The disk is full when the file called `full_at` is to be written."""

    full_at = None

    def _save_checkpoint_with_step(self, runner, step, meta):
        self._fill(runner)
        super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics):
        self._fill(runner)
        super()._save_best_checkpoint(runner, metrics)

    def _fill(self, runner):
        partial = os.path.join(runner.work_dir, f".{self.full_at}.partial")
        if self.full_at and not os.path.lexists(partial):
            os.symlink("/dev/full", partial)


def one_sample():
    return DataLoader(TensorDataset(torch.ones(1)))


def run(work_dir, hook, epochs, resume=False, val=False):
    """Train `epochs` epochs of one step each; one checkpoint an epoch."""
    extra = {}
    if val:
        extra = {"val_dataloader": one_sample(), "val_cfg": {}, "val_evaluator": [Rising()]}
    runner = Runner(
        model=Line(),
        work_dir=str(work_dir),
        resume=resume,
        train_dataloader=one_sample(),
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        train_cfg={"by_epoch": True, "max_epochs": epochs, "val_interval": 1},
        default_hooks={"checkpoint": hook, "logger": None},
        log_level="ERROR",
        experiment_name=f"t{os.urandom(4).hex()}",
        **extra,
    )
    runner.train()
    return runner


def checkpoints(folder):
    return sorted(p.name for p in folder.iterdir() if ".pth" in p.name)


def hook(full_at=None, **kwargs):
    made = FillDisk(interval=1, **kwargs)
    made.full_at = full_at
    return made


def test_full_disk_names_disk_space_and_last_good_checkpoint_which_stays(tmp_path):
    with pytest.raises(CheckpointSaveError) as caught:
        run(tmp_path, hook("epoch_3.pth", max_keep_ckpts=1), epochs=4)
    said = str(caught.value)
    good = tmp_path / "epoch_2.pth"
    assert f"Cannot write {tmp_path / 'epoch_3.pth'}: the disk is full" in said
    assert "disk mounted at /" in said and "MiB free" in said
    assert f"The last good checkpoint is {good}; it is untouched." in said
    assert f"--resume {good}" in said
    assert checkpoints(tmp_path) == ["epoch_2.pth"], "no half-written file, under any name"
    assert torch.load(good, weights_only=False)["meta"]["epoch"] == 2
    assert (tmp_path / "last_checkpoint").read_text() == str(good)
    assert not (tmp_path / ".last_checkpoint.spare").exists()


def test_training_goes_on_from_there(tmp_path):
    with pytest.raises(CheckpointSaveError):
        run(tmp_path, hook("epoch_3.pth", max_keep_ckpts=1), epochs=4)
    with tensors_only():
        runner = run(tmp_path, hook(max_keep_ckpts=1), epochs=4, resume=True)
    assert runner.epoch == 4
    assert checkpoints(tmp_path) == ["epoch_4.pth"]


def test_resuming_takes_the_checkpoint_that_was_checked(tmp_path, monkeypatch):
    """mmengine's runner, optimizer and counters, from one read of the file."""
    first = run(tmp_path, hook(), epochs=2)
    path, reads, real = str(tmp_path / "epoch_2.pth"), [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: reads.append(str(a[0])) or real(*a, **k))
    with tensors_only():
        check_checkpoint(Line(), path, resume=True)
        runner = run(tmp_path, hook(), epochs=3, resume=True)
    assert reads == [path]
    assert (runner.epoch, runner.iter) == (3, 3)
    # three steps of SGD on w squared at 0.1, two of them before
    assert first.model.weight.item() == pytest.approx(0.8**2)
    assert runner.model.weight.item() == pytest.approx(0.8**3)


def test_full_disk_at_the_first_checkpoint(tmp_path):
    with pytest.raises(CheckpointSaveError, match="No checkpoint had been saved yet"):
        run(tmp_path, hook("epoch_1.pth"), epochs=1)
    assert checkpoints(tmp_path) == []
    assert not (tmp_path / "last_checkpoint").exists()


def test_full_disk_while_the_name_is_recorded(tmp_path, monkeypatch):
    """The checkpoint fits, but opening last_checkpoint empties it and the name does not fit."""
    real = builtins.open

    def full_when_recording(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        if (
            str(path).endswith("/last_checkpoint")
            and "w" in mode
            and (tmp_path / "epoch_2.pth").exists()
        ):
            file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return file

    monkeypatch.setattr(builtins, "open", full_when_recording)
    with pytest.raises(CheckpointSaveError, match="last_checkpoint: the disk is full"):
        run(tmp_path, hook(max_keep_ckpts=1), epochs=3)
    monkeypatch.undo()
    assert last_good_checkpoint(tmp_path) == str(tmp_path / "epoch_1.pth")
    assert torch.load(tmp_path / "epoch_1.pth", weights_only=False)["meta"]["epoch"] == 1


def test_full_disk_keeps_the_previous_best(tmp_path):
    Rising.calls = 0
    with pytest.raises(CheckpointSaveError, match="best_acc_epoch_2.pth: the disk is full"):
        run(tmp_path, hook("best_acc_epoch_2.pth", save_best="acc"), epochs=3, val=True)
    assert checkpoints(tmp_path) == ["best_acc_epoch_1.pth", "epoch_1.pth", "epoch_2.pth"]


def test_old_ones_go_once_the_new_one_is_there(tmp_path):
    Rising.calls = 0
    run(tmp_path, hook(max_keep_ckpts=2, save_best="acc"), epochs=4, val=True)
    assert checkpoints(tmp_path) == ["best_acc_epoch_4.pth", "epoch_3.pth", "epoch_4.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_4.pth")


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "epoch_1.pth"
    target.write_bytes(b"old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_checkpoint_hook.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        AtomicLocalBackend().put(b"new", target)
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert checkpoints(tmp_path) == ["epoch_1.pth"]
    AtomicLocalBackend().put(b"new", target)
    assert target.read_bytes() == b"new"


def test_a_removal_is_called_off_when_the_file_was_written_anew(tmp_path):
    """A resumed run may find a new best at the epoch whose best it had before: the same name."""
    target, other = tmp_path / "best.pth", tmp_path / "old.pth"
    target.write_bytes(b"before")
    other.write_bytes(b"before")
    held = atomic_checkpoint_hook._HeldRemovals(get_file_backend(str(tmp_path)))
    held.remove(str(target))
    held.remove(str(other))
    assert target.exists() and other.exists()
    AtomicLocalBackend().put(b"after", target)
    held.carry_out()
    assert target.read_bytes() == b"after"
    assert not other.exists()


def test_other_write_errors_keep_their_own_reason(tmp_path):
    said = describe_write_error(OSError(errno.EROFS, os.strerror(errno.EROFS)), str(tmp_path / "x"))
    assert "Read-only file system" in said and "the disk is full" not in said


def test_the_tools_end_with_one_line(tmp_path):
    with pytest.raises(SystemExit) as caught, errors_in_one_line("train.py"):
        run(tmp_path, hook("epoch_2.pth"), epochs=2)
    assert str(caught.value).startswith(f"train.py: error: Cannot write {tmp_path / 'epoch_2.pth'}")
    assert "\n" not in str(caught.value)


def test_the_tools_name_a_full_disk_that_hits_a_log():
    with pytest.raises(SystemExit, match="the disk is full.*last_checkpoint names the last one"):
        with errors_in_one_line("train.py", resumable=True), open("/dev/full", "w") as log:
            log.write("line")


def test_the_tools_leave_other_errors_of_the_system_alone():
    with pytest.raises(PermissionError), errors_in_one_line("train.py"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_only_the_main_process_touches_the_spare_record(tmp_path, monkeypatch):
    """The others see it come and go in the shared folder."""
    spare = tmp_path / ".last_checkpoint.spare"
    spare.write_text("of the main process")
    runner = SimpleNamespace(work_dir=str(tmp_path))
    hook = atomic_checkpoint_hook.AtomicCheckpointHook()
    hook.file_backend = get_file_backend(str(tmp_path))
    for is_main, left in ((False, True), (True, False)):
        monkeypatch.setattr(
            atomic_checkpoint_hook, "is_main_process", lambda is_main=is_main: is_main
        )
        with hook._all_or_nothing(runner):
            pass
        assert spare.exists() == left


def test_a_new_file_takes_the_place_of_the_old_one_at_once(tmp_path):
    """Renamed, not copied: whoever has the old one open keeps it whole."""
    target = tmp_path / "deeper/epoch_1.pth"
    AtomicLocalBackend().put(b"old", target)
    with open(target, "rb") as reader:
        AtomicLocalBackend().put(b"new, and longer", target)
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new, and longer"
    assert os.listdir(tmp_path / "deeper") == ["epoch_1.pth"]


def test_a_failed_write_names_the_file_and_keeps_the_error(tmp_path):
    os.symlink("/dev/full", tmp_path / ".x.pth.partial")
    with pytest.raises(OSError) as error:
        AtomicLocalBackend().put(b"content", tmp_path / "x.pth")
    assert error.value.filename == str(tmp_path / "x.pth") and error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_last_good_checkpoint(tmp_path):
    assert last_good_checkpoint(tmp_path) is None
    record, path = tmp_path / "last_checkpoint", tmp_path / "epoch_1.pth"
    record.write_text(f"{path}\n")
    assert last_good_checkpoint(tmp_path) is None, "it is gone"
    path.write_bytes(b"")
    assert last_good_checkpoint(tmp_path) == str(path)
    record.write_text("")
    assert last_good_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("number", "full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, False), (errno.EIO, False)],
)
def test_a_full_disk_and_a_used_up_quota(tmp_path, number, full):
    error = OSError(number, os.strerror(number))
    assert is_full_disk(error) == full
    assert ("the disk is full" in describe_write_error(error, str(tmp_path / "x"))) == full
    assert not is_full_disk(ValueError(number))


def test_what_to_do_next_names_the_checkpoint_or_the_command(tmp_path):
    error = OSError(errno.ENOSPC, "full")
    said = describe_write_error(error, str(tmp_path / "no/such/folder/x"), "/w/epoch_3.pth")
    assert "The last good checkpoint is /w/epoch_3.pth; it is untouched." in said
    assert said.endswith("then go on with --resume /w/epoch_3.pth.")
    said = describe_write_error(error, str(tmp_path / "x"))
    assert "No checkpoint had been saved yet." in said
    assert said.endswith("then go on with the same command.")


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({}, {"backend": "misalign_atomic"}),
        ({"out_dir": "/mnt/checkpoints"}, {"backend": "misalign_atomic"}),
        ({"out_dir": "s3://bucket/run"}, None),
        ({"backend_args": {"backend": "local"}}, {"backend": "local"}),
        ({"file_client_args": {"backend": "disk"}}, None),
    ],
)
def test_which_backend_writes(kwargs, expected):
    assert AtomicCheckpointHook(interval=1, **kwargs).backend_args == expected


def test_the_record_of_a_first_checkpoint_that_failed_goes(tmp_path, monkeypatch):
    """The checkpoint fits, its name does not: nothing whole is named afterwards."""
    real = builtins.open

    def full_when_recording(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        if str(path).endswith("/last_checkpoint") and "w" in mode:
            file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return file

    monkeypatch.setattr(builtins, "open", full_when_recording)
    with pytest.raises(CheckpointSaveError, match="No checkpoint had been saved yet"):
        run(tmp_path, hook(), epochs=1)
    assert not (tmp_path / "last_checkpoint").exists()


def test_a_record_without_its_checkpoint_is_no_last_good_one(tmp_path):
    """Left from elsewhere: it is put back as it was, and not called good."""
    (tmp_path / "last_checkpoint").write_text("/gone/epoch_9.pth")
    with pytest.raises(CheckpointSaveError, match="No checkpoint had been saved yet"):
        run(tmp_path, hook("epoch_1.pth"), epochs=1)
    assert (tmp_path / "last_checkpoint").read_text() == "/gone/epoch_9.pth"


def test_errors_that_are_not_the_disks_pass_and_restore_the_record(tmp_path):
    good = tmp_path / "epoch_1.pth"
    good.write_bytes(b"")
    (tmp_path / "last_checkpoint").write_text(str(good))
    made = AtomicCheckpointHook()
    made.file_backend = backend = get_file_backend(str(tmp_path))
    old = tmp_path / "old.pth"
    old.write_bytes(b"")
    with (
        pytest.raises(ZeroDivisionError),
        made._all_or_nothing(SimpleNamespace(work_dir=str(tmp_path))),
    ):
        (tmp_path / "last_checkpoint").write_text("half")
        made.file_backend.remove(str(old))
        raise ZeroDivisionError
    assert (tmp_path / "last_checkpoint").read_text() == str(good)
    assert old.exists(), "removals that were held back are dropped"
    assert made.file_backend is backend
    assert not (tmp_path / ".last_checkpoint.spare").exists()


@pytest.mark.parametrize("before", [None, "epoch_1.pth"])
def test_an_interruption_after_the_save_keeps_the_new_name(tmp_path, before):
    """Ctrl-C between the last write and the end of the hook: the new checkpoint is complete."""
    made = AtomicCheckpointHook()
    made.file_backend = get_file_backend(str(tmp_path))
    record, new = tmp_path / "last_checkpoint", tmp_path / "epoch_2.pth"
    if before:
        (tmp_path / before).write_bytes(b"")
        record.write_text(str(tmp_path / before))
    with (
        pytest.raises(KeyboardInterrupt),
        made._all_or_nothing(SimpleNamespace(work_dir=str(tmp_path))),
    ):
        new.write_bytes(b"")
        record.write_text(str(new))
        raise KeyboardInterrupt
    assert last_good_checkpoint(tmp_path) == str(new)
    assert not (tmp_path / ".last_checkpoint.spare").exists()


def test_a_save_within_a_save_ends_with_the_outer_one(tmp_path):
    """mmengine saves the last checkpoint again when it saves a new best one."""
    made, old = AtomicCheckpointHook(), tmp_path / "old.pth"
    made.file_backend = get_file_backend(str(tmp_path))
    runner = SimpleNamespace(work_dir=str(tmp_path))
    record = tmp_path / "last_checkpoint"
    for fails in (True, False):
        old.write_bytes(b"")
        record.write_text("before")
        try:
            with made._all_or_nothing(runner):
                record.write_text("new")
                with made._all_or_nothing(runner):
                    made.file_backend.remove(str(old))
                assert old.exists(), "still held back"
                if fails:
                    raise OSError(errno.ENOSPC, "full", str(tmp_path / "x"))
        except CheckpointSaveError:
            pass
        assert old.exists() == fails
        assert record.read_text() == ("before" if fails else "new")


def test_whole_folders_are_held_back_too(tmp_path):
    folder = tmp_path / "epoch_1"
    folder.mkdir()
    held = atomic_checkpoint_hook._HeldRemovals(get_file_backend(str(tmp_path)))
    held.rmtree(str(folder))
    assert folder.exists() and held.isdir(str(folder))
    held.carry_out()
    assert not folder.exists()
