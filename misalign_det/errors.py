"""Errors of the user's input, whose message says what is wrong and what to do.

The tools print only the message and exit with status 1; see
:mod:`misalign_det.apis.error_reporting`.
"""


class InputError(ValueError):
    """The input cannot be used; the message names what is wrong and what to do."""


class ConfigError(ValueError):
    """A config cannot be read, or nothing can be built from it."""


class ConfigNotFoundError(FileNotFoundError):
    """No file and no packaged config has that name; the message lists near matches."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, unsafe, damaged or of another architecture."""


class CheckpointSaveError(RuntimeError):
    """A checkpoint could not be written; the message names the disk and the last good one."""


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the message names it, the images and the saved step."""
