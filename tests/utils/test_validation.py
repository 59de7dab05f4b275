"""Arguments that name one of several readings, and counts."""

import pytest

from misalign_det.utils.validation import check_choice, check_count


def test_a_choice_is_returned_and_another_value_names_all():
    assert check_choice("mode", "soft", ("soft", "hard")) == "soft"
    with pytest.raises(ValueError, match="mode must be one of 'soft', 'hard', not 'so'"):
        check_choice("mode", "so", ("soft", "hard"))


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, "3", None])
def test_counts_are_integers_from_one(value):
    with pytest.raises(ValueError, match=f"topk must be an integer from 1, not {value!r}"):
        check_count("topk", value)
    check_count("topk", 1)
    check_count("num_levels", 5, most=5)
    with pytest.raises(ValueError, match="num_levels must be an integer from 1 to 5, not 6"):
        check_count("num_levels", 6, most=5)
