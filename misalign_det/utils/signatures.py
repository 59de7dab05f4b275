"""Names of the arguments that a class or function takes from a config."""

import functools
import inspect
from typing import Any

from torch import nn


@functools.cache
def argument_names(kind: Any) -> tuple[tuple[str, ...], bool]:
    """Names of the arguments of a class or function.

    Those of the base classes belong to them as far as ``**kwargs`` are passed on, and so do old
    names of :func:`~misalign_det.utils.old_names.renamed_arguments`.

    Args:
        kind: what a config's ``type`` names.

    Returns:
        The names in order, and whether the list is complete, so that any other name is an error.

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
    names: dict[str, None] = {}  # a dict keeps the order
    complete = False
    for number, function in enumerate(functions):
        if (
            function is nn.Module.__init__
        ):  # takes **kwargs only to refuse them with a better message
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
                break  # a base class may pass its **kwargs past the next one, as mmdet's VFNetHead
    names |= dict.fromkeys(getattr(kind, "renamed_arguments", {}))  # the old names
    return tuple(names), complete
