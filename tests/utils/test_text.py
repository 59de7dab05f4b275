"""Lists of names in messages."""

from misalign_det.utils.text import shorten


def test_the_first_names_and_how_many_there_are():
    assert shorten(range(5)) == "0, 1, 2, 3, 4"
    assert shorten(range(6)) == "0, 1, 2, 3, 4, ... (6 in all)"
    assert shorten((name for name in "abc"), 2) == "a, b, ... (3 in all)"
    assert shorten([]) == ""
