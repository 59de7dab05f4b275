"""``--data FOLDER``: train, test or analyse on a folder, whatever the data set of the config."""

from .data_option import use_data

__all__ = ["use_data"]
