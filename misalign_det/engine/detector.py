"""Old name of :mod:`misalign_det.apis.detector`."""

import importlib
import warnings
from typing import Any

from ..utils.old_names import RenamedWarning


def __getattr__(name: str) -> Any:
    # By name: this package imports nothing from apis.
    found = getattr(importlib.import_module("misalign_det.apis.detector"), name)
    message = "misalign_det.engine.detector is now called misalign_det.apis.detector."
    warnings.warn(message, RenamedWarning, stacklevel=2)
    return found
