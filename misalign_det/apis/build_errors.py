"""Explain in one line an error that comes up when something is built from a config."""

import difflib
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmdet.registry
from mmengine.config import Config
from mmengine.registry import Registry

from ..utils import argument_names, walk

_UNKNOWN = re.compile(r"(\S+) is not in the (\S+?)::(.+?) registry")
_ARGUMENT = re.compile(
    r"(\w+?)(?P<init>\.__init__)?\(\) (?:"
    r"got an unexpected keyword argument '(?P<surplus>\w+)'|"
    r"missing \d+ required [\w-]+ arguments?: (?P<missing>.+))"
)
# Whose constructors are taken to be right, and the values that they refuse to be wrong.
_PACKAGES = (__name__.split(".")[0], "mmdet", "mmengine", "mmcv", "torch")
_REFUSALS = (ValueError, TypeError, KeyError, AssertionError, RuntimeError, ImportError)


def explain_build_error(error: Exception, cfg: Config | None = None) -> str | None:
    """Explain an unknown type, an unexpected argument, or a value that a class refuses.

    The last one is explained for classes of this package and of those that it is built on.

    Args:
        error: raised while a runner, a loop, a dataset or the like was built.
        cfg: searched for the key that is at fault.

    Returns:
        One line: the key, what is wrong, and near matches. None for any other error.
    """
    if isinstance(error, KeyError) and error.args:
        unknown = _UNKNOWN.match(str(error.args[0]))
        if unknown:
            return _unknown_type(unknown[1], unknown[2], unknown[3], cfg)
        layer = _unknown_layer(error)
        if layer:
            return _unknown_type(layer, "mmdet", "model", cfg)
    found = _ARGUMENT.search(str(error)) if isinstance(error, TypeError) else None
    if found and _comes_from_a_config(error, found):
        return _wrong_argument(found, _class_of(error), cfg)
    own = _own_message(error, cfg) if isinstance(error, ValueError) else None
    return own or (_refused_value(error, cfg) if isinstance(error, _REFUSALS) else None)


def unknown_type(place: str, name: str, registry: Registry) -> str:
    """What is said of a type that a registry does not have.

    Args:
        place: dotted key of the part whose ``type`` it is.
        name: the type.
        registry: where it was looked for.
    """
    return _no_such_type(f"{place}.type: ", name, registry.scope, registry.name)


def _unknown_type(name: str, scope: str, kind: str, cfg: Mapping | None) -> str:
    place = next((key for key, part in _dicts(cfg or {}) if part.get("type") == name), None)
    return _no_such_type(f"{place}.type: " if place else "", name, scope, kind)


def _no_such_type(place: str, name: str, scope: str, kind: str) -> str:
    known = _known_names(scope, kind)
    near = difflib.get_close_matches(name.split(".")[-1], known, n=3, cutoff=0.6)
    found_by = "" if near else " A class of your own is found if custom_imports names its module."
    return f"{place}{scope} has no {kind} {name!r}.{_near(near)}{found_by}"


def _unknown_layer(error: Exception) -> str | None:
    """The type that one of mmcv's builders of layers did not find; its message has None instead."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or not frames[-1].f_globals.get("__name__", "").startswith("mmcv.cnn.bricks."):
        return None
    layer = frames[-1].f_locals.get("layer_type")
    return layer if isinstance(layer, str) else None


def _refused_value(error: Exception, cfg: Mapping | None) -> str | None:
    """What a constructor of a known package says of its arguments; None for any other error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    last = frames[-1]
    kind = type(last.f_locals.get("self"))
    modules = (kind.__module__, last.f_globals.get("__name__", ""))
    while frames and frames[-1].f_code.co_name == "__init__":
        frames.pop()
    if (
        last.f_code.co_name != "__init__"
        or not all(str(name).split(".")[0] in _PACKAGES for name in modules)
        or not (frames and frames[-1].f_code.co_name.startswith("build_"))
    ):
        return None
    place, part = next(
        ((key, part) for key, part in _dicts(cfg or {}) if _type_name(part) == kind.__name__),
        ("", {}),
    )
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    reason = f"{type(error).__name__}: {' '.join(text.split())}".removesuffix(": ").rstrip(".")
    values = [f"{key}={value!r}" for key, value in part.items() if key != "type"]
    values = [value for value in values if len(value) <= 60]  # a dict is no argument to be shown
    given = f" Its arguments are {', '.join(values)}." if values else ""
    where = " MISALIGN_DET_TRACEBACK=1 shows where it comes from."  # perhaps a fault of the class
    return f"{place}{place and ': '}{kind.__name__} cannot be built ({reason}).{given}{where}"


def _own_message(error: ValueError, cfg: Mapping | None) -> str | None:
    """The message of a class of this package, with its key; None for any other ValueError."""
    owner = _class_of(error)
    if owner is None:
        return None
    raised_in = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    if not all(
        str(name).split(".")[0] == _PACKAGES[0]
        for name in (getattr(owner, "__module__", ""), raised_in.f_globals.get("__name__", ""))
    ):
        return None
    place = next(
        (key for key, part in _dicts(cfg or {}) if _type_name(part) == owner.__name__), None
    )
    return f"{place}: {error}" if place else str(error)


def _known_names(scope: str, kind: str) -> list[str]:
    """Names in mmdet's registry of this kind, and in those above it."""
    registries = [
        value
        for value in vars(mmdet.registry).values()
        if isinstance(value, Registry) and value.name == kind
    ]
    registries.sort(key=lambda value: value.scope != scope)
    registry, names = next(iter(registries), None), set()
    while registry is not None:
        names |= set(registry.module_dict)
        registry = registry.parent
    return sorted(names)


def _wrong_argument(found: re.Match, owner: type | None, cfg: Mapping | None) -> str:
    name, surplus = found[1], found["surplus"]
    # The class that was built: the message may name a parent class that got the keyword.
    kinds = [kind for kind in (getattr(owner, "__name__", None), name) if kind]
    parts = [
        (key, part)
        for key, part in _dicts(cfg or {})
        if _type_name(part) in kinds and (not surplus or surplus in part)
    ]
    if surplus and not parts:  # a runner's loop may have no type
        parts = [(key, part) for key, part in _dicts(cfg or {}) if surplus in part]
    place = parts[0][0] if parts else None
    if surplus:
        takes, _ = argument_names(owner) if owner else ((), False)
        near = difflib.get_close_matches(surplus, takes, n=3, cutoff=0.6)
        key = f"{place}.{surplus}: " if place else ""
        rest = _near(near) or (f" It takes {', '.join(takes)}." if takes else "")
        return f"{key}{kinds[0]} takes no {surplus!r}.{rest}"
    return f"{f'{place}: ' if place else ''}{kinds[0]} needs {found['missing']}."


def _comes_from_a_config(error: Exception, found: re.Match) -> bool:
    """Whether the call that failed was made by a registry, or by a constructor to its parent's."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    passed_on = frames[-1].f_code.co_name == "__init__"
    while frames and frames[-1].f_code.co_name == "__init__":
        frames.pop()
    built = bool(frames) and frames[-1].f_code.co_name.startswith("build_")
    if not passed_on:
        return built
    parents = [kind.__name__ for kind in getattr(_class_of(error), "__mro__", ())]
    return built and bool(found["init"]) and found[1] in parents


def _class_of(error: Exception) -> type | None:
    """The class that the innermost registry was building; None if none was."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next(
        (frame.f_locals["obj_cls"] for frame in reversed(frames) if "obj_cls" in frame.f_locals),
        None,
    )


def _type_name(part: Mapping) -> str | None:
    kind = part.get("type")
    return kind.split(".")[-1] if isinstance(kind, str) else getattr(kind, "__name__", None)


def _dicts(cfg: Any) -> Iterator[tuple[str, Mapping]]:
    """Every dict inside a config, with its dotted key."""
    return ((key, part) for key, part in walk(cfg) if isinstance(part, Mapping))


def _near(names: Sequence[str]) -> str:
    return f" Near matches: {', '.join(names)}." if names else ""
