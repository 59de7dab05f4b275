"""Every part of a config is met once, under the key that changes it."""

from mmengine.config import Config

from misalign_det.utils import walk


def test_dicts_lists_and_tuples():
    cfg = Config(dict(a=dict(b=[1, dict(c=2)]), d=(3,), e=None))
    found = dict(walk(cfg))
    assert list(found) == ["a", "a.b", "a.b.0", "a.b.1", "a.b.1.c", "d", "d.0", "e"]
    assert found["a.b.1.c"] == 2 and found["d.0"] == 3 and found["e"] is None
    assert found["a"] is cfg.a


def test_a_value_has_no_parts():
    assert list(walk("abc")) == [] and list(walk({}, "x.")) == []
    assert list(walk(dict(a=1), "x.")) == [("x.a", 1)]
