"""Every old name of the package still works, warns with the new one, and is in the change log.

The classes are found by walking the package's modules, the registered names by what
:func:`~misalign_det.utils.old_names.register_old_name` has registered.
"""

import inspect
import pkgutil
import re
import warnings
from importlib import import_module

import mmdet.registry
import pytest
from helpers.paths import ROOT
from mmengine.registry import Registry
from torch import nn

import misalign_det
from misalign_det.utils import argument_names, old_names
from misalign_det.utils.old_names import RenamedWarning

CHANGELOG = ROOT / "CHANGELOG.md"
PLAIN = (bool, int, float, str, tuple, list, dict, type(None))
REQUIRED = dict(num_classes=3, in_channels=8)
# By new name: a value that no class has as its default, and what else it asks for.
VALUES = {
    "gradient_mul": (0.5, {}),
    "init_distance": (3.0, {}),
    "iou_branch_on": ("classification", {}),
    "iou_target": ("refined", {}),
    "loss_iou": (dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=0.25), {}),
    "per_gt_reweight": (0.5, {}),
    "precisions_init": (2.0, {}),
    "separation": ("crossing", {}),
    "with_iou_branch": (False, dict(score_mode="class")),
}


def classes():
    """All classes that the package defines, by walking its modules."""
    found = {}
    for info in pkgutil.walk_packages(misalign_det.__path__, "misalign_det."):
        if info.name.endswith("_triton") or info.name.rsplit(".", 1)[-1].startswith("_"):
            continue  # kernels, for which Triton may be missing
        for cls in vars(import_module(info.name)).values():
            if inspect.isclass(cls) and cls.__module__.startswith("misalign_det."):
                found[cls] = None
    return list(found)


CLASSES = classes()
REGISTRIES = [part for part in vars(mmdet.registry).values() if isinstance(part, Registry)]
OLD_NAMES = [old for old in old_names.OLD_NAMES if old.cls.__module__.startswith("misalign_det.")]
ARGUMENTS = [
    (cls, old, new) for cls in CLASSES for old, new in getattr(cls, "renamed_arguments", {}).items()
]


def registry_of(cls):
    """Where a class is registered, ``None`` for an abstract one."""
    return next((r for r in REGISTRIES if r.module_dict.get(cls.__name__) is cls), None)


def required(cls):
    parameters = inspect.signature(cls).parameters
    return {name: value for name, value in REQUIRED.items() if name in parameters}


def state(obj):
    """What the arguments of an object have become, inside its modules too."""
    parts = [obj, *obj.modules()] if isinstance(obj, nn.Module) else [obj]
    return repr(obj) if isinstance(obj, nn.Module) else "", [
        {key: value for key, value in vars(part).items() if isinstance(value, PLAIN)
         and not key.startswith("_")} for part in parts
    ]  # fmt: skip


def changes(heading):
    """The rows of a table of the change log: names in its first column, names in its second."""
    text = CHANGELOG.read_text().split(f"### Changed: {heading}\n")[1].split("\n### ")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    return [[re.findall(r"`(\w+)`", cell) for cell in row] for row in rows]


@pytest.fixture(autouse=True)
def nothing_warned():
    old_names._warn.cache_clear()


REGISTERED = [case for case in ARGUMENTS if registry_of(case[0])]


@pytest.mark.parametrize(
    ("cls", "old", "new"), REGISTERED, ids=[f"{c.__name__}-{old}" for c, old, _ in REGISTERED]
)
def test_an_old_argument_builds_what_the_new_one_builds(cls, old, new):
    registry = registry_of(cls)
    assert new in VALUES, f"Add a value of {new} to this test."
    value, others = VALUES[new]
    cfg = dict(type=cls.__name__, **required(cls), **others)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RenamedWarning)
        expected = state(registry.build(dict(cfg, **{new: value})))
        default = state(registry.build({**cfg}))
    with pytest.warns(RenamedWarning, match=rf"\b{old} is now called {new}\b"):
        found = state(registry.build(dict(cfg, **{old: value})))
    assert found == expected != default
    names, complete = argument_names(cls)
    assert complete and {old, new} <= set(names)


@pytest.mark.parametrize("old", OLD_NAMES, ids=lambda old: old.name)
def test_an_old_registered_name_builds_the_class(old):
    assert registry_of(old.cls) is not None
    with pytest.warns(RenamedWarning, match=f"{old.name} is now called {old.cls.__name__}"):
        built = old.registry.build(dict(type=old.name, **required(old.cls)))
    assert type(built) is old.cls


def test_every_table_belongs_to_a_registered_class():
    """An abstract class hands its table on to those that configs name."""
    assert REGISTERED and OLD_NAMES
    for cls, *names in ARGUMENTS:
        assert any(issubclass(c, cls) and [*rest] == names for c, *rest in REGISTERED), (cls, names)


def test_every_old_argument_of_the_change_log_is_taken():
    rows = changes("config keys")
    assert len(rows) >= 5
    taken = {name for cls in CLASSES if registry_of(cls) for name in argument_names(cls)[0]}
    mentioned = {cls.__name__ for cls in CLASSES}  # "`with_confidence` (`TripleHead`)"
    assert [name for old, _ in rows for name in old if name not in taken | mentioned] == []


def test_every_old_registered_name_of_the_change_log_is_registered():
    rows = changes("registered names")
    assert rows
    known = {name for registry in REGISTRIES for name in registry.module_dict}
    assert [name for old, _ in rows for name in old if name not in known] == []


def test_the_change_log_has_every_old_name():
    listed = {
        heading: {(old, new) for olds, news in changes(heading) for old in olds for new in news}
        for heading in ("config keys", "registered names")
    }
    assert {(old, new) for _, old, new in ARGUMENTS} - listed["config keys"] == set()
    registered = {(old.name, old.cls.__name__) for old in OLD_NAMES}
    assert registered - listed["registered names"] == set()
