"""Old names of arguments and registered classes, which keep working with one warning."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from mmengine.registry import Registry

T = TypeVar("T", bound=type)


class RenamedWarning(FutureWarning):
    """An old name is used; the message gives the new one."""


class OldName(NamedTuple):
    """A class that is registered under an old name, too."""

    registry: Registry
    name: str
    cls: type


OLD_NAMES: list[OldName] = []  # in the order of their registration


def renamed_arguments(**names: str) -> Callable[[T], T]:
    """Class decorator: ``__init__`` also takes its arguments by their old names.

    Where a config gives both, the old name counts: a config that was written before the renaming
    overrides a key of its ``_base_``. The signature stays as it is. The names are kept in the
    attribute ``renamed_arguments`` of the class, where
    :func:`~misalign_det.utils.argument_names` finds them.

    Args:
        **names: ``old="new"``.

    Example:
        >>> @renamed_arguments(colour="color")
        ... class Pen:
        ...     def __init__(self, color):
        ...         self.color = color
        >>> Pen(colour="red").color  # with a RenamedWarning
        'red'
    """

    def decorate(cls: T) -> T:
        decorated: Any = cls
        init = decorated.__init__

        @functools.wraps(init)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            for old, new in names.items():
                if old in kwargs:
                    kwargs[new] = kwargs.pop(old)
                    _warn(f"{type(self).__name__}: the argument {old} is now called {new}.")
            init(self, *args, **kwargs)

        decorated.__init__ = __init__
        decorated.renamed_arguments = {**getattr(cls, "renamed_arguments", {}), **names}
        return cls

    return decorate


def register_old_name(registry: Registry, old: str, cls: type) -> None:
    """Register a class under its old name, too.

    A config's ``type=old`` then builds an object of ``cls``, with one warning.

    Args:
        registry: where configs find it.
        old: the old name.
        cls: the class, which has been registered under its own name.
    """
    renamed: Any = cls
    init = renamed.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        _warn(f"{old} is now called {cls.__name__}.")
        if type(self) is alias:  # pickle could not find the alias by its name
            self.__class__ = cls
        init(self, *args, **kwargs)

    alias = type(old, (cls,), dict(__init__=__init__))
    alias.__module__, alias.__doc__ = cls.__module__, f"Old name of :class:`{cls.__name__}`."
    registry.register_module(name=old, module=alias)
    OLD_NAMES.append(OldName(registry, old, cls))


@functools.cache
def _warn(message: str) -> None:
    """Once per process and message."""
    warnings.warn(message, RenamedWarning, stacklevel=3)
