"""Detections from a file that mmdet's ``DumpDetResults`` or ``tools/test.py --out`` wrote."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, InputError

_CORES = ("numpy.core", "numpy._core")  # NumPy 2 renamed it
_ALLOWED = {
    ("_codecs", "encode"),  # bytes of NumPy's numbers, in the pickles that mmengine writes
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"{core}.multiarray", name) for core in _CORES for name in ("_reconstruct", "scalar")),
    *((f"{core}.numeric", "_frombuffer") for core in _CORES),
}


def load_detections(path: str | Path, trust: bool = False) -> list[dict[str, Any]]:
    """Read the detections of a split.

    Args:
        path: the pickle.
        trust: load any objects; ``--trust-checkpoint`` on the command line.

    Returns:
        One dict per image, with ``img_id`` and ``pred_instances``: ``bboxes`` ``(D, 4)``, xyxy in
        pixels of the original image, ``scores`` and ``labels`` ``(D,)``, tensors or arrays.

    Raises:
        CheckpointError: the file holds more than numbers, strings, arrays and tensors: a pickle may
            run any code while it is loaded.
        InputError: the file is missing or damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            found = pickle.load(file) if trust else _PlainUnpickler(file).load()
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # bytes that are no pickle may mean anything, and raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as a pickle of detections: {reason}") from error
    fits = isinstance(found, list) and all(
        isinstance(s, dict) and "img_id" in s and _has_boxes(s.get("pred_instances")) for s in found
    )
    if not fits:
        raise InputError(
            f"{path} is not a list of detections, one dict per image with img_id and "
            "pred_instances, which has bboxes, scores and labels. Write it with tools/test.py "
            "--out FILE.pkl or mmdet's DumpDetResults."
        )
    return found


def _has_boxes(instances: Any) -> bool:
    """Whether these are boxes with as many scores and labels."""
    try:
        counts = {len(instances[key]) for key in ("bboxes", "scores", "labels")}
    except (TypeError, KeyError, IndexError, AttributeError):
        return False
    return len(counts) == 1


class _PlainUnpickler(pickle.Unpickler):
    """Loads numbers, strings, containers, arrays and tensors; nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise CheckpointError(
            "the file of detections was not loaded: it holds more than numbers, arrays and "
            f"tensors, and asks for {module}.{name}. If you trust its source with your account "
            "and data, pass --trust-checkpoint."
        )
