"""Checkpoints: what mmengine saves loads, code is refused, another architecture is named."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from helpers.checkpoints import save, small
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as load_by_mmengine

from misalign_det.engine import checkpoint
from misalign_det.engine.checkpoint import (
    check_checkpoint,
    load_checkpoint,
    read_checkpoint,
    tensors_only,
)
from misalign_det.errors import CheckpointError

FORCE, FORCE_NO = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
BEFORE_2_6 = checkpoint._is_old()


@pytest.fixture(autouse=True, params=[True] if BEFORE_2_6 else [False, True])
def old(request, monkeypatch):
    """By torch's own list of types, which it has since 2.6, and as with older ones."""
    monkeypatch.setattr(checkpoint, "_is_old", lambda: request.param)
    return request.param


def test_what_mmengine_saves_is_loaded(tmp_path):
    path = save(tmp_path / "x.pth")
    with tensors_only():
        check_checkpoint(small(), path)
        content = torch.load(path, weights_only=False)  # forced to tensors only all the same
    assert content["message_hub"]["log_scalars"]["loss"].data[0].tolist() == [0.5, 0.25, 0.125]
    assert content["message_hub"]["runtime_info"]["lr"] == 0.01
    assert content["meta"]["iter"] == 4


@pytest.mark.skipif(int(np.__version__.split(".")[0]) < 2, reason="renames NumPy 2's modules")
def test_files_written_under_numpy_1_are_loaded(tmp_path):
    old = tmp_path / "numpy1.pth"
    with zipfile.ZipFile(save(tmp_path / "x.pth")) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(name, content)
    with tensors_only():
        check_checkpoint(small(), str(old))


def test_the_variables_are_as_before(monkeypatch, old):
    monkeypatch.setenv(FORCE_NO, "1")
    monkeypatch.delenv(FORCE, raising=False)
    with tensors_only():
        assert os.environ.get(FORCE) == (None if old else "1") and FORCE_NO not in os.environ
    assert os.environ[FORCE_NO] == "1" and FORCE not in os.environ
    with pytest.raises(ZeroDivisionError), tensors_only(trust=True):
        assert os.environ[FORCE_NO] == "1" and FORCE not in os.environ
        raise ZeroDivisionError
    assert os.environ[FORCE_NO] == "1" and FORCE not in os.environ


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_is_refused_wherever_it_is_loaded(tmp_path):
    path = save(tmp_path / "x.pth", extra=Touch(tmp_path / "ran"))
    with pytest.raises(CheckpointError, match="x.pth was refused.*--trust-checkpoint.*io.open"):
        with tensors_only():
            check_checkpoint(small(), path)
    # not by check_checkpoint, but for instance by a backbone's init_cfg
    with pytest.raises(CheckpointError, match="a checkpoint that the config names was refused"):
        with tensors_only():
            torch.load(path, weights_only=False)
    assert not (tmp_path / "ran").exists()
    with tensors_only(trust=True):
        check_checkpoint(small(), path)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "load",
    [
        read_checkpoint,
        lambda path, **trust: check_checkpoint(small(), path, **trust),
        lambda path, **trust: load_checkpoint(small(), path, **trust),
    ],
    ids=["read", "check", "load"],
)
def test_loading_is_guarded_without_a_block_around_it(tmp_path, load):
    path = save(tmp_path / "x.pth", extra=Touch(tmp_path / "ran"))
    for kwargs in ({}, dict(trust=False)):
        with pytest.raises(CheckpointError, match=f"It asks for {open.__module__}.open"):
            load(path, **kwargs)
    assert not (tmp_path / "ran").exists()
    load(path, trust=True)
    assert (tmp_path / "ran").exists()


def test_blocks_inside_one_another(tmp_path):
    safe, unsafe = save(tmp_path / "x.pth"), save(tmp_path / "y.pth", extra=Touch(tmp_path / "ran"))
    with tensors_only():
        with tensors_only():
            torch.load(safe)
        torch.load(safe)  # the inner block's end does not take away what mmengine saves
        with tensors_only(trust=True):
            torch.load(save(tmp_path / "z.pth", extra=Touch(tmp_path / "trusted")))
            assert (tmp_path / "trusted").exists()
            with tensors_only(trust=False):
                torch.load(safe)
                with pytest.raises(pickle.UnpicklingError):
                    torch.load(unsafe)
            torch.load(safe)
        torch.load(safe)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(unsafe)
    assert not (tmp_path / "ran").exists()
    with tensors_only(trust=True):
        read_checkpoint(unsafe)  # as the block around it says
    assert (tmp_path / "ran").exists()
    assert checkpoint._blocks == [] and FORCE not in os.environ and FORCE_NO not in os.environ
    with pytest.raises(pickle.UnpicklingError):  # nothing stays allowed
        torch.load(safe, weights_only=True)


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that torch reads, in order."""
    names, real = [], torch.load

    def counted(path, *args, **kwargs):
        names.append(os.path.basename(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(torch, "load", counted)
    return names


def test_a_checkpoint_is_read_once(tmp_path, reads):
    path = save(tmp_path / "x.pth")
    model = small()
    load_checkpoint(model, path)
    assert reads == ["x.pth"]
    saved = torch.load(path, weights_only=False)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    reads.clear()
    with tensors_only():
        first = read_checkpoint(path)
        check_checkpoint(model, path)
        check_checkpoint(model, path, resume=True)
        assert load_by_mmengine(small(), path) is first  # onedl and mmengine give it back
        assert reads == ["x.pth"]
        assert load_by_mmengine(small(), path) is not first  # which mmengine may have changed
        assert reads == ["x.pth", "x.pth"]
        read_checkpoint(path)
    assert checkpoint._read == {}
    assert isinstance(vars(CheckpointLoader)["load_checkpoint"], classmethod)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    save(tmp_path / "x.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    check_checkpoint(small(), "~/x.pth")


class Attribute:
    """Unpickling it gets an attribute of a class that is allowed itself."""

    def __init__(self, owner, name):
        self.what = owner, name

    def __reduce__(self):
        return getattr, self.what


def test_getattr_is_for_statistics_alone(tmp_path):
    """Files of mmengine 0.10.7 and of onedl's; both pickle the names of HistoryBuffer's methods."""
    torch.save({"state_dict": {}, "buffer": HistoryBuffer([1.0], [1])}, tmp_path / "x.pth")
    with tensors_only():
        buffer = torch.load(tmp_path / "x.pth")["buffer"]
    assert buffer.statistics("mean") == 1.0
    for owner, name in ((HistoryBuffer, "__init__"), (np.ndarray, "tofile")):
        torch.save({"state_dict": {}, "buffer": Attribute(owner, name)}, tmp_path / "y.pth")
        with pytest.raises(CheckpointError, match="It asks for builtins.getattr."), tensors_only():
            torch.load(tmp_path / "y.pth")


def test_only_resuming_minds_a_config_that_it_would_execute(tmp_path):
    """mmdet 2.x wrote its config there."""
    path = save(tmp_path / "x.pth", config="import os")
    check_checkpoint(small(), path)
    check_checkpoint(small(), path, strict=False)
    with pytest.raises(CheckpointError, match=r"meta\['config'\] would be run as Python code") as e:
        check_checkpoint(small(), path, resume=True)
    assert "\n" not in str(e.value) and "load_from" in str(e.value)
    check_checkpoint(small(), path, resume=True, trust=True)


def test_weights_alone_cannot_be_resumed_from(tmp_path):
    content = {"state_dict": small().state_dict(), "meta": {"epoch": 1}}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="not the state of a training .no iter, message_hub."):
        check_checkpoint(small(), str(tmp_path / "x.pth"), resume=True)
    check_checkpoint(small(), str(tmp_path / "x.pth"))


def test_weights_without_the_optimizer_cannot_be_resumed_from(tmp_path):
    path = save(tmp_path / "x.pth")
    content = torch.load(path, weights_only=False)
    check_checkpoint(small(), path, resume=True)
    del content["optimizer"]
    torch.save(content, tmp_path / "best_x.pth")
    with pytest.raises(
        CheckpointError, match="best_x.pth cannot be resumed from.*of optimizer, wh"
    ):
        check_checkpoint(small(), str(tmp_path / "best_x.pth"), resume=True)
    check_checkpoint(small(), str(tmp_path / "best_x.pth"))


def test_groups_of_parameters_that_are_frozen_now_are_left_out(tmp_path):
    model, path = small(), save(tmp_path / "x.pth")
    model[0].requires_grad_(False)
    model.frozen_when_built = ["0.weight", "0.bias"]
    content = torch.load(path, weights_only=False)
    groups = [{"params": [i], "lr": 0.1} for i in range(4)]
    torch.save({**content, "optimizer": {"state": {}, "param_groups": groups}}, path)
    for resume, left in ((False, [0, 1, 2, 3]), (True, [2, 3])):
        with tensors_only():
            check_checkpoint(model, path, resume=resume)
            found = load_by_mmengine(model, path)["optimizer"]["param_groups"]
        assert [group["params"] for group in found] == [[i] for i in left]


def test_files_that_are_no_checkpoints(tmp_path):
    whole = save(tmp_path / "x.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes((tmp_path / "x.pth").read_bytes()[:-200])
    torch.save([1, 2], tmp_path / "list.pth")
    for path, message in (
        (cut, "cut.pth cannot be read as a checkpoint; it may be cut short"),
        (tmp_path / "list.pth", "list.pth holds a list, not a dict"),
        (tmp_path / "none.pth", "there is no checkpoint .*none.pth"),
    ):
        with pytest.raises(CheckpointError, match=message), tensors_only():
            check_checkpoint(small(), str(path))
    with tensors_only():
        check_checkpoint(small(), whole)
