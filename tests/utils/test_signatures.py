"""The arguments of a class are those that it names and those that it hands on."""

import pytest
from mmengine.hooks import Hook
from torch import nn

from misalign_det.models import TripleHead
from misalign_det.utils import argument_names


def closed(a, *, b=1):
    pass


def with_more(a, **kwargs):
    pass


class Base:
    def __init__(self, c, d=None):
        pass


class Derived(Base):
    def __init__(self, a, **kwargs):
        super().__init__(**kwargs)


class Closed(Derived):
    def __init__(self, z):
        super().__init__(z)


class Sink(Hook):
    def __init__(self, a, **kwargs):
        pass


class Layer(nn.Module):
    def __init__(self, a, *args, **kwargs):
        super().__init__(**kwargs)


class Nothing:
    pass


class Made:
    def __new__(cls, a):
        return super().__new__(cls)

    def __init__(self, b):
        pass


class Skips(Closed, Base):
    def __init__(self, e, **kwargs):
        Base.__init__(self, **kwargs)


@pytest.mark.parametrize(
    ("kind", "names", "complete"),
    [
        (closed, ("a", "b"), True),
        (with_more, ("a",), False),
        (Base, ("c", "d"), True),
        (Derived, ("a", "c", "d"), True),
        (Closed, ("z",), True),
        (Sink, ("a",), False),
        (Layer, ("a",), True),
        (Nothing, (), False),
        (Made, (), False),
        (Skips, ("e", "z", "a", "c", "d"), True),
        (dict, (), False),
    ],
)
def test_names_in_order_and_whether_these_are_all(kind, names, complete):
    assert argument_names(kind) == (names, complete)


def test_a_head_of_mmdets_family():
    names, complete = argument_names(TripleHead)
    assert complete and names[:2] == ("num_classes", "in_channels")
    assert {"offset_mode", "init_distance", "stacked_convs", "init_cfg"} <= set(names)
    assert "anchor_generator" not in names and "self" not in names
