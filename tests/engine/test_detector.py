"""The old name of misalign_det.apis.detector, which the README of version 0.1.0 gave."""

import pytest

from misalign_det.apis import detector
from misalign_det.utils.old_names import RenamedWarning


def test_the_old_module_gives_the_new_functions():
    from misalign_det.engine import detector as old

    with pytest.warns(RenamedWarning, match="misalign_det.apis.detector"):
        assert old.load_detector is detector.load_detector
