"""Label assignment and heads for MMDetection that treat ambiguity and misalignment.

Importing this package checks the stack below it and registers everything with mmdet, so that a
config needs

    custom_imports = dict(imports=['misalign_det'])

and can then name `TripleHead`, `JLAAssigner` and the rest as mmdet's own.
"""

from .environment import check_environment, let_threads_sleep
from .version import __version__

let_threads_sleep()
check_environment()

from . import engine, evaluation, models  # noqa: E402  (only once the stack is known to be there)

__all__ = ["__version__", "engine", "evaluation", "models"]
