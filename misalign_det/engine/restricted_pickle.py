"""Load checkpoints with torch before 2.6 as later versions do: types of a list, and no code.

From 2.6 on :func:`torch.serialization.safe_globals` adds to the types that ``torch.load`` accepts.
Before, ``weights_only=True`` refuses what mmengine saves beside the weights, also with the types
added to its list. A pickle loads only what ``Unpickler.find_class`` gives it (Python's
documentation, "Restricting Globals"), and ``torch.load`` takes the module of the unpickler.
"""

import _codecs
import _compat_pickle
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch._weights_only_unpickler import _get_allowed_globals


@contextmanager
def restricted_load(types: Mapping[str, Any], trusted: Callable[[], bool]) -> Iterator[None]:
    """Within the block ``torch.load`` accepts tensors and some types, whatever its arguments.

    Args:
        types: by ``"module.name"``, added to those that torch loads with ``weights_only=True``.
        trusted: asked at each load; where it is true the load is left as it is.

    Raises:
        pickle.UnpicklingError: at a load; the file asks for another type.
    """
    known = {**_get_allowed_globals(), **_of_later_versions(), **types}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            module, name = _names_of_python_3(module, name)
            if f"{module}.{name}" not in known:
                raise pickle.UnpicklingError(f"Unsupported GLOBAL {module}.{name}")
            return known[f"{module}.{name}"]

    def load_pickle(file: Any, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    restricted = SimpleNamespace(Unpickler=Unpickler, load=load_pickle, __name__="restricted")
    load = torch.load

    def load_restricted(*args: Any, **kwargs: Any) -> Any:
        if trusted():
            return load(*args, **kwargs)
        kwargs.pop("weights_only", None)  # torch refuses both at once
        return load(*args, **{**kwargs, "pickle_module": restricted})

    torch.load = load_restricted
    try:
        yield
    finally:
        torch.load = load


def _of_later_versions() -> dict[str, Any]:
    """What torch 2.6 has in its list and torch 2.1 has not; bytes are pickled by ``encode``."""
    dtypes = {
        f"torch.{key}": kind for key, kind in vars(torch).items() if isinstance(kind, torch.dtype)
    }
    others = {"_codecs.encode": _codecs.encode, "builtins.set": set, "torch.device": torch.device}
    return {**dtypes, **others}


def _names_of_python_3(module: str, name: str) -> tuple[str, str]:
    """torch pickles in protocol 2, in the names of Python 2: ``__builtin__`` for ``builtins``."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        return _compat_pickle.NAME_MAPPING[module, name]
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name
