"""YOLO: one text file per image, names of the classes in a YAML file or a list."""

from .class_names import has_class_names
from .reader import is_yolo, read_yolo

__all__ = ["has_class_names", "is_yolo", "read_yolo"]
