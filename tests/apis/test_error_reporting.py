"""How a tool ends: one line for what the user can mend, a traceback for the rest."""

import errno
import json
import os
import subprocess
import sys

import pytest
from helpers.paths import ROOT
from helpers.processes import restore_sigint
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.utils.dl_utils import collect_env

from misalign_det.apis import error_reporting
from misalign_det.apis.error_reporting import _is_mim, config_in_use, errors_in_one_line
from misalign_det.errors import InputError

BROKEN = "raise RuntimeError('operator torchvision::nms')"


@pytest.fixture(autouse=True)
def nothing_at_exit(monkeypatch):
    """What would be done at the end of this process; kept from being done."""
    kept = []
    monkeypatch.setattr(error_reporting.atexit, "register", kept.append)
    return kept


def ends_with(error, **kwargs):
    with pytest.raises(SystemExit) as end, errors_in_one_line("x.py", **kwargs):
        raise error
    return end.value.code


def test_the_message_alone(nothing_at_exit):
    assert ends_with(InputError("no data")) == "x.py: error: no data"
    assert nothing_at_exit == [error_reporting._end_mim]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("x"),
        TypeError("x"),
        KeyError("x"),
        PermissionError(errno.EACCES, "denied"),
        FileNotFoundError(errno.ENOENT, "gone", "file"),
    ],
)
def test_errors_of_the_program_keep_their_traceback(error, nothing_at_exit):
    with pytest.raises(type(error)), errors_in_one_line("x.py"):
        raise error
    assert nothing_at_exit == []


@pytest.mark.parametrize(("value", "raised"), [("1", InputError), ("0", SystemExit)])
def test_mistakes_keep_it_where_it_is_asked_for(value, raised, monkeypatch):
    monkeypatch.setenv("MISALIGN_DET_TRACEBACK", value)
    with pytest.raises(raised, match="no such file"), errors_in_one_line("tool.py"):
        raise InputError("no such file")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_may_not_be_written_is_named(number):
    text = ends_with(OSError(number, os.strerror(number), "/a/log"))
    assert text.startswith(f"x.py: error: /a/log: {os.strerror(number)}. ") and "--work-dir" in text


@pytest.mark.parametrize("resumable", [True, False])
def test_a_full_disk_is_no_reason_to_resume_what_cannot_be(resumable):
    text = ends_with(OSError(errno.ENOSPC, "full", "/a/b.jpg"), resumable=resumable)
    assert text.startswith("x.py: error: the disk is full while writing /a/b.jpg. ")
    assert ("--resume" in text) == ("checkpoints" in text) == resumable
    assert "Free some space, then" in text


def test_mistakes_in_a_config_are_named_with_their_key():
    before = config_in_use.get()
    with pytest.raises(SystemExit) as end, errors_in_one_line("x.py"):
        loop = dict(type="EpochBasedTrainLoop", max_epoch=3)
        config_in_use.set(Config(dict(train_cfg=loop)))
        LOOPS.build({**loop, "runner": None, "dataloader": None})
    assert end.value.code.startswith("x.py: error: train_cfg.max_epoch: EpochBasedTrainLoop takes")
    assert config_in_use.get() is before


def test_a_torchvision_that_was_built_for_another_torch(tmp_path, monkeypatch):
    """mmengine imports it for its description of the environment."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(SystemExit) as end, errors_in_one_line("x.py"):
        collect_env()
    assert end.value.code.startswith(
        "x.py: error: the installed torchvision is not one for this torch: it cannot be imported "
        "(operator torchvision::nms). Nothing here needs it: pip uninstall torchvision. Or pip in"
    )


def test_an_image_that_validation_cannot_load(tmp_path, nothing_at_exit):
    image = tmp_path / "cut.jpg"
    image.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SystemExit) as ended, errors_in_one_line("train.py"):
        LoadImageFromFile().transform({"img_path": str(image)})
    assert str(ended.value).startswith(f"train.py: error: {image} cannot be decoded.")


def test_interrupted(tmp_path, capsys):
    assert ends_with(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\nx.py: interrupted.\n"

    def interrupted_run():
        with pytest.raises(SystemExit) as end, errors_in_one_line("x.py", resumable=True):
            config_in_use.set(Config(dict(work_dir=str(tmp_path))))
            raise KeyboardInterrupt
        assert end.value.code == 130
        return capsys.readouterr().err

    assert interrupted_run() == "\nx.py: interrupted. No checkpoint had been saved yet.\n"
    (tmp_path / "epoch_1.pth").write_bytes(b"")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_1.pth"))
    assert interrupted_run().endswith(f"--resume continues from {tmp_path / 'epoch_1.pth'}.\n")


def test_torchruns_summary_holds_the_message(tmp_path, monkeypatch):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    ends_with(InputError("no data"))
    assert json.loads(path.read_text())["message"]["message"] == "x.py: error: no data"
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=str(path))
    assert "traceback : x.py: error: no data" in str(ChildFailedError("train.py", {0: failure}))
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "gone/error.json"))
    assert ends_with(InputError("no data")) == "x.py: error: no data"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python|/env/bin/mim|train|misalign_det", True),
        ("python|-m|mim|test|misalign_det", True),
        ("python|/env/bin/mim|gridsearch|misalign_det", False),
        ("python|/env/bin/mim", False),
        ("bash|train.sh", False),
        ("python|/usr/bin/notmim|train|x", False),
        ("python|run_mim.py|train", False),
    ],
)
def test_only_mims_own_commands_are_taken_for_mim(command, expected):
    assert _is_mim(command.split("|")) == expected


TOOL = """
import sys
if "-h" not in sys.argv:
    from misalign_det.datasets.annotation_checks import InputError
    from misalign_det.apis.error_reporting import errors_in_one_line
    with errors_in_one_line("train.py"):
        raise InputError("no data")
"""
MIM = """
import mim.utils
from mim.cli import cli
mim.utils.get_installed_path = lambda package: {root!r}
cli()
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="mim is found through /proc")
def test_mim_ends_with_the_message(tmp_path):
    """mim's own command, on a tool that finds the user's input at fault."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "config.py").write_text("")
    (tmp_path / "mim").write_text(MIM.format(root=str(tmp_path)))
    command = [sys.executable, "mim", "train", "misalign_det", "config.py"]
    (tmp_path / "tools/train.py").write_text(TOOL)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)},
                          preexec_fn=restore_sigint)  # fmt: skip
    assert done.returncode == 1
    assert "CalledProcessError" not in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.partition("train.py: error: ")[2].split() == ["no", "data", "Aborted!"]
