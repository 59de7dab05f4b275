"""Errors whose message tells the user what is wrong and what to do.

The tools print the message alone and exit with status 1; see :mod:`~.apis.error_reporting`.
"""


class InputError(ValueError):
    """The input cannot be used; the message names what is wrong and what to do."""


class ConfigError(ValueError):
    """A config that cannot be read, or from which nothing can be built."""


class ConfigNotFoundError(FileNotFoundError):
    """No file and no packaged config of that name; the message lists the nearest ones."""


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, unsafe, damaged or of another architecture."""


class CheckpointSaveError(RuntimeError):
    """A checkpoint could not be written; the message names the disk and the last good one."""


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the message names it, the images and the record."""
