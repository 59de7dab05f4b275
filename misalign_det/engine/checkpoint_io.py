"""Loading checkpoints: tensors only, of the right architecture, alike on both stacks.

mmengine saves more than tensors: its message hub's `HistoryBuffer`s, NumPy arrays and scalars. From
torch 2.6 on `torch.load` refuses those. mmengine 0.10.7 then cannot load its own checkpoints;
onedl-mmengine falls back to unpickling whatever the file holds, which runs whatever code the file
asks for. Here exactly what mmengine saves is allowed, and the rest stays refused.
"""

import ast
import os
import pickle
import re
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from packaging.version import Version

_FORCE, _FORCE_NO = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_NUMPY = getattr(np, "_core", None) or np.core  # NumPy 2 renamed it; pickles hold either name


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, unsafe, damaged or of another architecture."""


@contextmanager
def tensors_only(trust=False):
    """Within the block every `torch.load`, mmengine's included, takes only what mmengine saves.

    Args:
        trust (bool): load arbitrary pickles instead, `--trust-checkpoint` on the command line.

    Raises:
        CheckpointError: from within the block a file was refused, or this torch cannot check.
    """
    if not trust and Version(torch.__version__) < Version("2.6"):
        raise CheckpointError(
            f"torch {torch.__version__} cannot load mmengine's checkpoints safely, torch 2.6 and "
            "later can. Install a newer torch or, for files of your own, pass --trust-checkpoint: "
            "a checkpoint may then run any code it holds.")
    forced, other = (_FORCE_NO, _FORCE) if trust else (_FORCE, _FORCE_NO)
    before = {name: os.environ.pop(name, None) for name in (forced, other)}
    os.environ[forced] = "1"  # torch heeds it even where a caller says weights_only=False
    try:
        with nullcontext() if trust else torch.serialization.safe_globals(_what_mmengine_saves()):
            yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal("a checkpoint that the config names", error)) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def check_checkpoint(model, filename, strict=True):
    """Load a checkpoint on trial, inside `tensors_only`, and compare it with the model.

    Args:
        model (nn.Module): built, wrapped for several processes or test-time augmentation or not.
        filename (str): what mmengine takes: a path, a URL, `torchvision://resnet50` ...
        strict (bool): True to test or resume: names and shapes must all agree. False to fine-tune:
            half of the model's tensors must be found, and the rest is named in a warning.

    Raises:
        CheckpointError: with the file and, for another architecture, both architectures and how
            many tensors match.
    """
    checkpoint = _load(filename)
    state = checkpoint.get("state_dict", checkpoint)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    surplus = [name for name in state if name not in wanted]
    shapes = [name for name in wanted
              if name in state and tuple(state[name].shape) != tuple(wanted[name].shape)]
    matching = len(wanted) - len(missing) - len(shapes)
    if matching == len(wanted) and not surplus:
        return
    text = (f"{filename}: {matching} of the model's {len(wanted)} tensors are in this checkpoint "
            f"({len(state)} tensors).{_some('missing', missing)}{_some('of another shape', shapes)}"
            f"{_some('not in the model', surplus)}")
    if strict or matching < len(wanted) / 2:
        raise CheckpointError(
            f"{text}\nThe checkpoint holds {_architecture(checkpoint)}; the config's model is "
            f"{_words(*_parts_of_model(model))}. Give the checkpoint of this config, or the config "
            "of this checkpoint.")
    print_log(f"{text} The others keep their initial values.", logger="current", level=30)


def _load(filename):
    if "://" not in filename and not os.path.isfile(filename):
        raise CheckpointError(f"there is no checkpoint {filename}")
    try:
        checkpoint = CheckpointLoader.load_checkpoint(filename, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(filename, error)) from error
    except (EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{filename} cannot be read as a checkpoint; it may be cut short: {error}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{filename} holds a {type(checkpoint).__name__}, not a dict with a state_dict")
    if os.environ.get(_FORCE) == "1" and "config" in (checkpoint.get("meta") or {}):
        # When resuming, mmengine executes this text as a Python config. It never writes it itself.
        raise CheckpointError(_refusal(filename, "Its meta['config'] would be run as Python code."))
    return checkpoint


def _refusal(what, why):
    asked = re.search(r"GLOBAL (\S+)", str(why))  # torch's text is long; this is its point
    reason = f"It asks for {asked[1]}." if asked else " ".join(str(why).split())
    return (f"{what} was refused, because it holds more than tensors and mmengine's own records. "
            "Loading it would run code from the file. If you trust where it comes from with your "
            f"account and data, pass --trust-checkpoint. {reason}")


def _what_mmengine_saves():
    """Types of its message hub (`HistoryBuffer`, NumPy arrays and scalars) and NumPy's builders."""
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, np.uint32, np.bool_)
    classes = [HistoryBuffer, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in kinds}]
    # A file written under NumPy 1 says numpy.core, one written under NumPy 2 numpy._core.
    builders = [(getattr(_NUMPY.multiarray, name), f"{core}.multiarray.{name}")
                for name in ("_reconstruct", "scalar") for core in ("numpy.core", "numpy._core")]
    # With their names, not bare: onedl-mmengine allows some of them bare while it loads, and takes
    # just those off torch's list afterwards.
    named = [(kind, f"{kind.__module__}.{kind.__qualname__}") for kind in classes]
    return [*named, *builders, (_statistic, "builtins.getattr")]


def _statistic(owner, name):
    """What a pickled `HistoryBuffer` looks up by `getattr`, its statistics, and nothing else."""
    if owner is not HistoryBuffer or name.startswith("_"):
        raise pickle.UnpicklingError(f"Unsupported GLOBAL builtins.getattr of {owner}, {name}")
    return getattr(owner, name)


def _architecture(checkpoint):
    """Detector, head and backbone from the config text that mmengine saves along; read, not run."""
    meta = checkpoint.get("meta") or {}
    try:
        tree = ast.parse(meta.get("cfg") or meta.get("config") or "")
        model = next(node.value for node in tree.body if isinstance(node, ast.Assign)
                     and getattr(node.targets[0], "id", None) == "model")
    except (SyntaxError, StopIteration, TypeError, ValueError):
        return "an architecture that it does not name"
    head, backbone = _keyword(model, "bbox_head"), _keyword(model, "backbone")
    return _words(*(_constant(part, "type") for part in (model, head, backbone)),
                  _constant(backbone, "depth"))


def _parts_of_model(model):
    head, backbone = (getattr(model, name, None) for name in ("bbox_head", "backbone"))
    names = (part if part is None else type(part).__name__ for part in (model, head, backbone))
    return *names, getattr(backbone, "depth", None)


def _words(detector, head, backbone, depth):
    """FCOS with TripleHead on ResNet (depth 50); what is None is left out."""
    return (f"{detector}{f' with {head}' if head else ''}{f' on {backbone}' if backbone else ''}"
            f"{f' (depth {depth})' if depth else ''}")


def _keyword(call, name):
    """The value of a keyword in a call's syntax tree, or None."""
    return next((k.value for k in getattr(call, "keywords", ()) if k.arg == name), None)


def _constant(call, name):
    return getattr(_keyword(call, name), "value", None)


def _some(what, names, limit=3):
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f" {what[0].upper()}{what[1:]}: {', '.join(names[:limit])}{more}."
