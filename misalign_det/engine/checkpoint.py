"""Load checkpoints: tensors only, of the right architecture, each file read once, on both stacks.

mmengine saves more than tensors: its message hub's `HistoryBuffer`s, NumPy arrays and scalars. From
torch 2.6 on, `torch.load` refuses those. mmengine 0.10.7 then cannot load its own checkpoints;
onedl-mmengine falls back to unpickling the whole file, which runs any code that the file contains.
Here exactly the types that mmengine saves are allowed, and all others stay refused; with an older
torch by `restricted_pickle.py`.
"""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.client import HTTPException
from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as load_by_mmengine
from packaging.version import Version
from torch import nn

from ..errors import CheckpointError
from .architecture import check_architecture
from .downloads import explain_download
from .named_weights import check_weights, is_local
from .optimizer_groups import leave_out_frozen
from .restricted_pickle import restricted_load

# NumPy 2 renamed it; pickles hold either name.
_core = "numpy._core" if Version(np.__version__) >= Version("2") else "numpy.core"
multiarray = import_module(f"{_core}.multiarray")
_FORCE, _FORCE_NO = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_blocks: list[bool] = []  # `trust` of each `tensors_only` block that is open, the innermost last
_read: dict[str, dict] = {}  # checkpoints by name, read but not yet loaded by mmengine


@contextmanager
def tensors_only(trust: bool | None = None) -> Iterator[None]:
    """Within the block every `torch.load`, also mmengine's, accepts only the types mmengine saves.

    mmengine gets a checkpoint that `read_checkpoint` or `check_checkpoint` has read within the
    block when it loads the same name, so that no file is read twice. Blocks may be nested.

    Args:
        trust: load any pickle instead (``--trust-checkpoint`` on the command line). Default: as
            the enclosing block; False without one.

    Raises:
        CheckpointError: a file was refused within the block.

    Example::

        with tensors_only():
            check_checkpoint(runner.model, 'epoch_12.pth')
            runner.test()
    """
    trust = bool(_blocks and _blocks[-1]) if trust is None else bool(trust)
    if _blocks and _blocks[-1] == trust:  # torch's list of types is not nested
        yield
        return
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NO)}
    if trust or not _is_old():
        os.environ[_FORCE_NO if trust else _FORCE] = "1"  # overrides a caller's weights_only=False
    allowed: AbstractContextManager = nullcontext()
    if not (trust or False in _blocks):
        kinds = _what_mmengine_saves()
        allowed = (
            restricted_load({name: kind for kind, name in kinds}, lambda: _blocks[-1])
            if _is_old()
            else torch.serialization.safe_globals(kinds)
        )
    _blocks.append(trust)
    try:
        with allowed, nullcontext() if len(_blocks) > 1 else _handed_over():
            yield
    except pickle.UnpicklingError as error:
        text = explain_download(error) or _refusal("a checkpoint that the config names", error)
        raise CheckpointError(text) from error
    finally:
        _blocks.pop()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _is_old() -> bool:
    """Whether torch has no list of types that is to be added to, or one without names."""
    return Version(torch.__version__) < Version("2.6")


@contextmanager
def _handed_over() -> Iterator[None]:
    """mmengine's loader returns what has been read already, instead of reading it again."""
    own = vars(CheckpointLoader)["load_checkpoint"]
    load = CheckpointLoader.load_checkpoint

    def take(filename: str, *args: Any, **kwargs: Any) -> Any:
        # Only once: mmengine and its hooks change what they are given.
        found = _read.pop(filename, None)
        return load(filename, *args, **kwargs) if found is None else found

    CheckpointLoader.load_checkpoint = staticmethod(take)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = own
        _read.clear()


def read_checkpoint(filename: str, trust: bool | None = None) -> dict:
    """Read a checkpoint to the CPU, inside `tensors_only`.

    Args:
        filename: as mmengine takes it: a path, a URL, `torchvision://resnet50` ...
        trust: see `tensors_only`.

    Returns:
        The checkpoint, with ``state_dict``, or weights alone.

    Raises:
        CheckpointError: the file is missing, unsafe or damaged, or holds no dict.
    """
    if filename in _read:
        return _read[filename]
    check_weights(filename)
    path = os.path.expanduser(filename)
    with tensors_only(trust):
        try:
            # Not mmengine's loader for a file: onedl's prints why it would unpickle the file.
            checkpoint = (
                torch.load(path, map_location="cpu")
                if is_local(filename)
                else CheckpointLoader.load_checkpoint(filename, map_location="cpu")
            )
        except CheckpointError:
            raise
        except pickle.UnpicklingError as error:
            raise CheckpointError(explain_download(error) or _refusal(filename, error)) from error
        except PermissionError:
            raise
        except (EOFError, OSError, HTTPException, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                explain_download(error)
                or f"{filename} cannot be read as a checkpoint; it may be cut short: {error}"
            ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{filename} holds a {type(checkpoint).__name__}, not a dict with a state_dict"
        )
    if _blocks:
        _read[filename] = checkpoint
    return checkpoint


def load_checkpoint(model: nn.Module, filename: str, trust: bool | None = None) -> dict:
    """Load a checkpoint whose names and shapes all agree with the model's; the file is read once.

    Args:
        model: changed in place.
        filename: as mmengine takes it.
        trust: see `tensors_only`.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: the file is missing, unsafe, damaged or of another architecture.
    """
    with tensors_only(trust):
        check_checkpoint(model, filename)
        return load_by_mmengine(model, filename, map_location="cpu")


def check_checkpoint(
    model: nn.Module,
    filename: str,
    strict: bool = True,
    resume: bool = False,
    trust: bool | None = None,
) -> None:
    """Read a checkpoint inside `tensors_only`, and compare it with the model.

    Args:
        model: built; may be wrapped for several processes or test-time augmentation.
        filename: as mmengine takes it: a path, a URL, `torchvision://resnet50` ...
        strict: True to test or resume: names and shapes must all agree. False to fine-tune: half
            of the model's tensors must be found, and a warning lists the others.
        resume: whether training is resumed from it, which needs more than weights. Groups of the
            optimizer that the model no longer has are left out.
        trust: see `tensors_only`.

    Raises:
        CheckpointError: names the file and, for another architecture, both architectures and the
            number of tensors that match.
    """
    with tensors_only(trust):
        checkpoint = read_checkpoint(filename)
        if resume:
            check_training_state(checkpoint, filename)
        check_architecture(model, checkpoint, filename, strict)
        if resume:
            leave_out_frozen(model, checkpoint)


def check_training_state(checkpoint: dict, filename: str, schedules: bool = False) -> None:
    """Refuse to resume from weights alone, and from text that mmengine would run as Python code.

    mmengine saves ``best_*.pth`` without optimizer and schedules, and resumes from it: both start
    anew, without a word.

    Args:
        checkpoint: from `read_checkpoint`.
        filename: for the message.
        schedules: whether the config has schedules, whose state is needed then.

    Raises:
        CheckpointError: with the reason.
    """
    meta = checkpoint.get("meta") or {}
    instead = (
        "Test it, or train from its weights: --cfg-options load_from=FILE instead of --resume FILE."
    )
    if "config" in meta and not (_blocks and _blocks[-1]):
        # Only Runner.resume executes this text. mmengine writes `cfg` instead; mmdet 2.x wrote it.
        raise CheckpointError(
            f"{filename} cannot be resumed from, because its meta['config'] "
            f"would be run as Python code (mmdet 2.x wrote it). {instead}"
        )
    lacking = [name for name in ("epoch", "iter") if name not in meta]
    lacking += [name for name in ("message_hub",) if name not in checkpoint]
    if lacking:
        raise CheckpointError(
            f"{filename} cannot be resumed from: it holds weights, but not the "
            f"state of a training (no {', '.join(lacking)}). {instead}"
        )
    needed = ("optimizer", "param_schedulers") if schedules else ("optimizer",)
    lacking = [name for name in needed if not checkpoint.get(name)]
    if lacking:
        raise CheckpointError(
            f"{filename} cannot be resumed from: it holds weights, but not the state of "
            f"{' and '.join(lacking)}, which would start anew; no best_*.pth holds it. Resume from "
            "an epoch_N.pth or iter_N.pth (the file last_checkpoint names the last one), or start "
            "a new training from the weights: --cfg-options load_from=FILE instead of --resume "
            "FILE."
        )


def _refusal(what: str, why: Exception) -> str:
    asked = re.search(r"GLOBAL (\S+)", str(why))  # the relevant part of torch's long message
    reason = f"It asks for {asked[1]}." if asked else " ".join(str(why).split())
    return (
        f"{what} was refused, because it holds more than tensors and mmengine's own records. "
        "Loading it would run code from the file. If you trust where it comes from with your "
        f"account and data, pass --trust-checkpoint (trust=True). {reason}"
    )


def _what_mmengine_saves() -> list[Any]:
    """Types in mmengine's message hub (`HistoryBuffer`, NumPy arrays and scalars), and NumPy's
    functions that rebuild them, each with its name."""
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint32, np.bool_)
    classes = [HistoryBuffer, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in kinds}]
    # A file written under NumPy 1 says numpy.core, one written under NumPy 2 numpy._core.
    builders = [
        (getattr(multiarray, name), f"{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("numpy.core", "numpy._core")
    ]
    # With their names: onedl-mmengine allows some of them without names while it loads, and removes
    # those from torch's list afterwards.
    named = [(kind, f"{kind.__module__}.{kind.__qualname__}") for kind in classes]
    return [*named, *builders, (_statistic, "builtins.getattr")]


def _statistic(owner: Any, name: str) -> Any:
    """`getattr` for a pickled `HistoryBuffer`: finds the buffer's statistics, nothing else."""
    if owner is not HistoryBuffer or name.startswith("_"):
        raise pickle.UnpicklingError(f"Unsupported GLOBAL builtins.getattr of {owner}, {name}")
    return getattr(owner, name)
