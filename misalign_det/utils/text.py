"""Lists of names in messages."""

from collections.abc import Iterable
from typing import Any


def shorten(names: Iterable[Any], limit: int = 5) -> str:
    """The first names of a list, for a message.

    Args:
        names: anything with a ``str``.
        limit: how many to list; if there are more, their number follows.

    Example:
        >>> shorten(range(4), 3)
        '0, 1, 2, ... (4 in all)'
    """
    texts = [str(name) for name in names]
    rest = f", ... ({len(texts)} in all)" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + rest
