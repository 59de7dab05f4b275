"""The ``type`` of a config: a string, a scoped string or the class itself."""

from typing import Any

from mmengine.registry import Registry


def find_type(kind: Any, registry: Registry) -> Any:
    """The class or function that a config's ``type`` names.

    mmengine's text configs have ``'DCLoss'`` or ``'mmdet.DCLoss'``, its pure Python configs the
    class itself.

    Args:
        kind: value of ``type``.
        registry: resolves a string.

    Returns:
        The class or function; ``None`` for a string that the registry does not know, and for
        ``None``.

    Example:
        >>> from mmdet.registry import MODELS
        >>> from misalign_det.models import DCLoss
        >>> find_type('mmdet.DCLoss', MODELS) is find_type(DCLoss, MODELS) is DCLoss
        True
    """
    return registry.get(kind) if isinstance(kind, str) else kind


def is_type(kind: Any, parent: type | tuple[type, ...], registry: Registry) -> bool:
    """Whether a config's ``type`` stands for ``parent``, or a class derived from it.

    Args:
        kind: value of ``type``; see :func:`find_type`.
        parent: a class, or several of which one suffices.
        registry: where a string is looked up.
    """
    found = find_type(kind, registry)
    return isinstance(found, type) and issubclass(found, parent)
