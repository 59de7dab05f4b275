"""Detections that mmdet's ``DumpDetResults`` or ``tools/test.py --out`` has written."""

import io
import pickle
from pathlib import Path

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


def load_detections(path: str | Path, trust: bool = False) -> list[dict]:
    """The detections of a split, one dict an image.

    Args:
        path: the pickle.
        trust: take whatever the file holds, ``--trust-checkpoint`` on the command line.

    Returns:
        Each with ``img_id`` and ``pred_instances``: ``bboxes``, ``scores``, ``labels``.

    Raises:
        CheckpointError: the file holds more than numbers, texts, arrays and tensors: a pickle may
            run any code while it is loaded.
        InputError: it is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            found = pickle.load(file) if trust else _PlainUnpickler(file).load()
    except (EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError) as error:
        raise InputError(f"{path} cannot be read as a pickle of detections: {error}") from error
    fits = isinstance(found, list) and all(
        isinstance(s, dict) and "img_id" in s and "pred_instances" in s for s in found
    )
    if not fits:
        raise InputError(
            f"{path} is no list of detections, one dict an image with img_id and pred_instances. "
            "Write it by tools/test.py --out FILE.pkl or mmdet's DumpDetResults."
        )
    return found


class _PlainUnpickler(pickle.Unpickler):
    """Numbers, texts, containers, arrays and tensors; nothing that could run code."""

    def find_class(self, module, name):
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise CheckpointError(
            "the file of detections was refused: it holds more than numbers, arrays and tensors, "
            f"it asks for {module}.{name}. If you trust where it comes from with your account and "
            "data, pass --trust-checkpoint."
        )
