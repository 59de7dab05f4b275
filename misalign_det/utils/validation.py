"""Checks of constructor arguments."""

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
