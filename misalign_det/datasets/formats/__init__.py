"""Recognise the layout of a folder with annotated images, and read it as COCO dictionaries."""

from .folder import DataFolder, read_folder

__all__ = ["DataFolder", "read_folder"]
