"""COCO: one JSON file per split, also as Roboflow and CVAT export it."""

from .annotation_files import ROBOFLOW, coco_files, is_coco
from .reader import read_coco

__all__ = ["ROBOFLOW", "coco_files", "is_coco", "read_coco"]
