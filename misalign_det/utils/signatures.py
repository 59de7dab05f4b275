"""The arguments that a class or function takes from a config."""

import functools
import inspect
from typing import Any

from torch import nn


@functools.cache
def argument_names(kind: Any) -> tuple[tuple[str, ...], bool]:
    """Names of the arguments of a class or function, through ``**kwargs`` along the base classes.

    Args:
        kind: what a config's ``type`` stands for.

    Returns:
        The names in order, and whether these are all, so that any other one is an error.

    Example:
        >>> from mmdet.models.losses import IoULoss
        >>> argument_names(IoULoss)
        (('linear', 'eps', 'reduction', 'loss_weight', 'mode'), True)
    """
    functions = [kind]
    if isinstance(kind, type):
        if kind.__new__ is not object.__new__:
            return (), False
        functions = [vars(c)["__init__"] for c in kind.__mro__ if "__init__" in vars(c)]
    names, complete = {}, False  # a dict keeps the order
    for number, function in enumerate(functions):
        if function is nn.Module.__init__:  # takes **kwargs to refuse them with a better message
            complete = True
        if function in (nn.Module.__init__, object.__init__):
            break
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # written in C
            return tuple(names), False
        parameters = parameters[isinstance(kind, type) :]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names |= {p.name: None for p in parameters if p.kind in named}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            complete = True
            if number == 0:
                break  # else a class may hand its **kwargs past the next one: mmdet's VFNetHead
    names |= dict.fromkeys(getattr(kind, "renamed_arguments", {}))  # the old names
    return tuple(names), complete
