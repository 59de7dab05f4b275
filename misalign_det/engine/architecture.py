"""Detector, head and backbone of a model and of a checkpoint, in words for a message."""

import ast


def describe_model(model):
    """ "FCOS with TripleHead on ResNet (depth 50)" of a model that is built.

    Args:
        model (nn.Module): a detector, not wrapped.
    """
    head, backbone = (getattr(model, name, None) for name in ("bbox_head", "backbone"))
    names = (part if part is None else type(part).__name__ for part in (model, head, backbone))
    return _words(*names, getattr(backbone, "depth", None))


def describe_checkpoint(checkpoint):
    """The same of a checkpoint, from the config text that mmengine saves along; read, not run.

    Args:
        checkpoint (dict): as loaded.
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
    return _words(
        *(_constant(part, "type") for part in (model, head, backbone)), _constant(backbone, "depth")
    )


def _words(detector, head, backbone, depth):
    """What is None is left out."""
    return (
        f"{detector}{f' with {head}' if head else ''}{f' on {backbone}' if backbone else ''}"
        f"{f' (depth {depth})' if depth else ''}"
    )


def _keyword(call, name):
    """The value of a keyword in a call's syntax tree, or None."""
    return next((k.value for k in getattr(call, "keywords", ()) if k.arg == name), None)


def _constant(call, name):
    return getattr(_keyword(call, name), "value", None)
