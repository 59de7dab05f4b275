"""A good COCO set of four images, to be spoilt, and the config that reads it."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from misalign_det.datasets.preflight import InputError, check_config

CLASSES = ("cat", "dog", "fox")


class CocoSet:
    """A COCO set on disk; `write` after changing `content`."""

    def __init__(self, root):
        self.root = root
        self.file = root / "annotations.json"
        (root / "images").mkdir()
        for i in range(4):
            cv2.imwrite(str(self.image(i)), np.full((48, 64, 3), 40 * i, np.uint8))
        self.content = {
            "images": [
                {"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(4)
            ],
            "annotations": [
                {
                    "id": 10 + i,
                    "image_id": i,
                    "category_id": 1 + i % 3,
                    "area": 100,
                    "bbox": [5, 5, 10, 10],
                    "iscrowd": 0,
                }
                for i in range(4)
            ],
            "categories": [{"id": i + 1, "name": n} for i, n in enumerate(CLASSES)],
        }
        self.write()

    def image(self, number):
        return self.root / "images" / f"{number}.jpg"

    def write(self, text=None):
        self.file.write_text(json.dumps(self.content) if text is None else text)
        return self

    def dataset(self, load="LoadImageOrSkip", **kwargs):
        return {
            "type": "CocoDataset",
            "data_root": str(self.root),
            "ann_file": "annotations.json",
            "data_prefix": {"img": "images/"},
            "metainfo": {"classes": CLASSES},
            "filter_cfg": {"filter_empty_gt": False, "min_size": 32},
            "pipeline": [
                {"type": load},
                {"type": "LoadAnnotations", "with_bbox": True},
                {"type": "PackDetInputs"},
            ],
            **kwargs,
        }

    def config(self, num_classes=3, **kwargs):
        test = self.dataset(load="LoadImageFromFile", **kwargs)
        return Config(
            {
                "model": {"type": "FCOS", "bbox_head": {"num_classes": num_classes}},
                "train_dataloader": {"dataset": self.dataset(**kwargs)},
                "val_dataloader": {"dataset": test},
                "test_dataloader": {"dataset": test},
                "val_evaluator": {"type": "CocoMetric", "ann_file": str(self.file)},
                "test_evaluator": {"type": "CocoMetric", "ann_file": str(self.file)},
            }
        )

    def fault(self, modes=("train",), **kwargs):
        """The message of the error that this set gives."""
        self.cfg = self.config(**kwargs)
        with pytest.raises(InputError) as caught:
            check_config(self.cfg, modes)
        return str(caught.value)

    def notes(self, modes=("train",), **kwargs):
        return check_config(self.config(**kwargs), modes)
