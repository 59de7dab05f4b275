"""Checks of constructor arguments."""

import math
from collections.abc import Sequence


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of the choices.

    Args:
        name: of the argument, for the message.
        value: of the argument.
        choices: the values that are allowed.

    Raises:
        ValueError: it is none of them; the message lists them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
    return value


def check_count(name: str, value: int, most: float = math.inf) -> None:
    """Raise a ValueError unless ``value`` is an integer from 1 to ``most``.

    Args:
        name: of the argument, for the message.
        value: of the argument.
        most: the largest value that is allowed.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        upper = "" if most == math.inf else f" to {most}"
        raise ValueError(f"{name} must be an integer from 1{upper}, not {value!r}.")
