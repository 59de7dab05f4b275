"""The figures of a tested run, from the detections that are kept, and the size of its model."""

import copy
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from misalign_det.evaluation.coco_ap import load_annotations
from misalign_det.evaluation.detections_file import load_detections
from misalign_det.evaluation.paired_bootstrap import coco_figures
from misalign_det.utils import dataset_classes


def split_of(config: Path) -> tuple[Any, tuple[str, ...]]:
    """Annotations and classes of the split that a run's config tests."""
    cfg = Config.fromfile(config)
    classes = dataset_classes(cfg.test_dataloader.dataset)
    return load_annotations(cfg.test_evaluator.ann_file), tuple(classes or ())


def figures(config: Path, detections: Path) -> dict[str, Any]:
    """COCO's figures, 0 to 1, not rounded to three digits as `CocoMetric` logs them.

    Returns:
        AP, AP50, AP75, APs, APm, APl (None where no object has that size) and `per_class`, the AP
        by name of the class.
    """
    coco, classes = split_of(config)
    found = coco_figures(coco, load_detections(detections), classes, detailed=True)
    rounded = {key: _round(value) for key, value in found.items() if key != "per_class"}
    per_class = {name: _round(value) for name, value in found["per_class"].items()}
    return dict(rounded, per_class=per_class)


def parameters(config: Path) -> int:
    """Number of a model's parameters, frozen ones too."""
    register_all_modules()
    model = copy.deepcopy(Config.fromfile(config).model)
    return sum(p.numel() for p in MODELS.build(model).parameters())


def _round(value: float) -> float | None:
    return None if value != value else round(value, 5)  # JSON has no NaN
