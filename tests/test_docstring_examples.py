"""The examples in docstrings give what they show."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import misalign_det
from misalign_det.utils.old_names import RenamedWarning

MODULES = [
    info.name
    for info in pkgutil.walk_packages(misalign_det.__path__, "misalign_det.")
    if not info.name.endswith(("_triton", "._triton_probe"))  # Triton may be missing
]


def examples(name):
    found = doctest.DocTestFinder(exclude_empty=True).find(import_module(name))
    return [example for example in found if example.examples]


EXAMPLES = [example for name in MODULES for example in examples(name)]


@pytest.mark.filterwarnings(f"ignore::{RenamedWarning.__module__}.RenamedWarning")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example(example):
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_there_are_examples():
    assert len(EXAMPLES) >= 10
