"""Whether the tensors of a checkpoint are those of a model, and what both are called."""

import ast
import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from ..errors import CheckpointError


def check_architecture(
    model: nn.Module, checkpoint: Mapping, filename: str, strict: bool = True
) -> None:
    """Compare names and shapes of a checkpoint's tensors with the model's.

    Args:
        model: built; may be wrapped for several processes or test-time augmentation.
        checkpoint: with ``state_dict``, or weights alone.
        filename: for the message.
        strict: whether all names and shapes must agree. If False, half of the model's tensors must
            be found; the others are listed in a warning.

    Raises:
        CheckpointError: with both architectures and the number of tensors that match.
    """
    saved = checkpoint.get("state_dict", checkpoint)
    state = OrderedDict((name.removeprefix("module."), value) for name, value in saved.items())
    # The versions of its modules, by which they rename old keys.
    state._metadata = getattr(saved, "_metadata", OrderedDict())  # type: ignore[attr-defined]
    model = unwrap_model(model)
    expected = model.state_dict()
    missing, surplus, shapes = _differences(expected, state)
    if missing and surplus:
        missing, surplus = _after_renaming(model, state, missing, surplus, shapes)
    matching = len(expected) - len(missing) - len(shapes)
    if matching == len(expected) and not surplus:
        return
    text = (
        f"{filename}: {matching} of the model's {len(expected)} tensors are in this checkpoint "
        f"({len(state)} tensors).{_some('missing', missing)}{_some('of another shape', shapes)}"
        f"{_some('not in the model', surplus)}"
    )
    if strict or matching < len(expected) / 2:
        raise CheckpointError(
            f"{text}\nThe checkpoint holds {describe_checkpoint(checkpoint)}; the config's model "
            f"is {describe_model(model)}. Give the checkpoint of this config, or the config of "
            "this checkpoint."
        )
    print_log(f"{text} The others keep their initial values.", logger="current", level=30)


def unwrap_model(model: Any) -> Any:
    """The model inside wrappers for several processes and for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def describe_model(model: nn.Module) -> str:
    """Detector, head and backbone of a model: "FCOS with TripleHead on ResNet (depth 50)".

    Args:
        model: a detector, not wrapped.
    """
    head, backbone = (getattr(model, name, None) for name in ("bbox_head", "backbone"))
    names = [part if part is None else type(part).__name__ for part in (head, backbone)]
    return _describe(type(model).__name__, *names, depth=getattr(backbone, "depth", None))


def describe_checkpoint(checkpoint: Mapping) -> str:
    """As :func:`describe_model`, of a checkpoint.

    The names come from the config text that mmengine saves in it. The text is parsed, not run.

    Args:
        checkpoint: as loaded.
    """
    meta = checkpoint.get("meta") or {}
    try:
        tree = ast.parse(meta.get("cfg") or meta.get("config") or "")
        model = next(
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "model"
        )
    except (SyntaxError, StopIteration, TypeError, ValueError):
        return "an architecture that it does not name"
    head, backbone = _keyword(model, "bbox_head"), _keyword(model, "backbone")
    names = [_constant(part, "type") for part in (head, backbone)]
    return _describe(_constant(model, "type"), *names, depth=_constant(backbone, "depth"))


def _describe(detector: Any, head: Any, backbone: Any, *, depth: Any) -> str:
    """Parts that are None are left out."""
    return (
        f"{detector}{f' with {head}' if head else ''}{f' on {backbone}' if backbone else ''}"
        f"{f' (depth {depth})' if depth else ''}"
    )


def _keyword(call: ast.AST | None, name: str) -> ast.expr | None:
    """The value of a keyword in a call's syntax tree, or None."""
    return next((k.value for k in getattr(call, "keywords", ()) if k.arg == name), None)


def _constant(call: ast.AST | None, name: str) -> Any:
    return getattr(_keyword(call, name), "value", None)


def _differences(expected: Mapping, state: Mapping) -> tuple[list[str], list[str], list[str]]:
    """Names that the state lacks, has beyond the expected ones, and has in another shape."""
    missing = [name for name in expected if name not in state]
    surplus = [name for name in state if name not in expected]
    shapes = [
        name for name in expected if name in state and _shape(state[name]) != _shape(expected[name])
    ]
    return missing, surplus, shapes


def _after_renaming(
    model: nn.Module, state: OrderedDict, missing: list[str], surplus: list[str], shapes: list[str]
) -> tuple[list[str], list[str]]:
    """`missing` and `surplus` once mmdet has renamed the keys of older versions."""
    state = copy.copy(state)
    for name in shapes:
        del state[name]
    try:
        found = copy.deepcopy(model).load_state_dict(state, strict=False)
    except RuntimeError:  # renamed, but of another shape
        return missing, surplus
    return [name for name in found.missing_keys if name not in shapes], found.unexpected_keys


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _some(what: str, names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f" {what[0].upper()}{what[1:]}: {', '.join(names[:limit])}{more}."
