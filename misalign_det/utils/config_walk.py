"""Walk over all parts of a config with their dotted keys."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config


def walk(value: Any, head: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every part of a config, outer parts first.

    Args:
        value: a config, or any part of one.
        head: prefix of each key.

    Example:
        >>> list(walk(dict(a=[dict(b=1)])))
        [('a', [{'b': 1}]), ('a.0', {'b': 1}), ('a.0.b', 1)]
    """
    items: Iterable = ()
    if isinstance(value, (Mapping, Config)):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, inner in items:
        yield f"{head}{key}", inner
        yield from walk(inner, f"{head}{key}.")
