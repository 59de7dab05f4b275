"""Arguments that name one of several readings."""

import pytest

from misalign_det.utils.validation import check_choice


def test_a_choice_is_returned_and_another_value_names_all():
    assert check_choice("mode", "soft", ("soft", "hard")) == "soft"
    with pytest.raises(ValueError, match="mode must be one of 'soft', 'hard', not 'so'"):
        check_choice("mode", "so", ("soft", "hard"))
