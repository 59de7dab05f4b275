"""Label assignment and heads for MMDetection that treat ambiguity and misalignment.

Importing this package checks the stack below it and registers everything with mmdet, so that a
config needs

    custom_imports = dict(imports=['misalign_det'])

and can then name `TripleHead`, `JLAAssigner` and the rest as mmdet's own.
"""

from .environment import check_environment, use_passive_wait_policy
from .version import __version__

use_passive_wait_policy()
check_environment()

from . import analysis, datasets, engine, evaluation, models  # noqa: E402  (once the stack is known to be there)

__all__ = ["__version__", "analysis", "datasets", "engine", "evaluation", "models"]
