"""Mistakes in a config that come up only when something is built from it, in one line."""

import difflib
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmdet.registry
from mmengine.registry import Registry

from ..utils import argument_names, walk

_UNKNOWN = re.compile(r"(\S+) is not in the (\S+?)::(.+?) registry")
_ARGUMENT = re.compile(
    r"(\w+?)(?P<init>\.__init__)?\(\) (?:"
    r"got an unexpected keyword argument '(?P<surplus>\w+)'|"
    r"missing \d+ required [\w-]+ arguments?: (?P<missing>.+))"
)


def explain_build_error(error: Exception, cfg: Mapping | None = None) -> str | None:
    """One line for a type that no registry knows, or an argument that a type does not take.

    Also for a value that a class of this package refuses when it is built.

    Args:
        error: what came out of building a runner, a loop, a dataset ...
        cfg: where the key is looked for.

    Returns:
        Which key, what is wrong, the near matches; None for any other error.
    """
    if isinstance(error, KeyError) and error.args:
        found = _UNKNOWN.match(str(error.args[0]))
        return found and _unknown_type(*found.groups(), cfg)
    if isinstance(error, ValueError):
        return _refused_value(error, cfg)
    found = isinstance(error, TypeError) and _ARGUMENT.search(str(error))
    if found and _comes_from_a_config(error, found):
        return _wrong_argument(found, _class_of(error), cfg)
    return None


def _unknown_type(name: str, scope: str, kind: str, cfg: Mapping | None) -> str:
    place = next((key for key, part in _dicts(cfg or {}) if part.get("type") == name), None)
    place = f"{place}.type: " if place else ""
    known = _known_names(scope, kind)
    near = difflib.get_close_matches(name.split(".")[-1], known, n=3, cutoff=0.6)
    found_by = (
        "" if near else (" A class of your own is found once custom_imports names its module.")
    )
    return f"{place}{scope} has no {kind} {name!r}.{_near(near)}{found_by}"


def _refused_value(error: ValueError, cfg: Mapping | None) -> str | None:
    """The message of a class of this package, with its key; None for any other ValueError."""
    owner = _class_of(error)
    raised_in = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    package = __name__.split(".")[0]
    if not all(
        str(name).split(".")[0] == package
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
    # Of the class itself, where the message names the parent to which it passes the keyword on.
    kinds = [kind for kind in (getattr(owner, "__name__", None), name) if kind]
    parts = [
        (key, part)
        for key, part in _dicts(cfg or {})
        if _type_name(part) in kinds and (not surplus or surplus in part)
    ]
    if surplus and not parts:  # a runner's own loop needs no type
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
    """Whether the call that failed was made to build something, or to build its parent class."""
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
    """The class that the innermost registry was building; None where no registry was."""
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
