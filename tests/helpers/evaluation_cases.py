"""Annotations and detections that the tests of the evaluation share."""

import numpy as np
import torch
from mmengine.evaluator import Evaluator

import misalign_det  # noqa: F401
from misalign_det.evaluation.coco_matching import ImageGroundTruth, match_image

META = dict(classes=("cat", "dog", "emu"))


def sample(image_id, rows):
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return dict(
        img_id=image_id,
        ori_shape=(100, 100),
        pred_instances=dict(bboxes=rows[:, :4], scores=rows[:, 4], labels=rows[:, 5].long()),
    )


def detections(seed=0):
    """Jittered copies of the objects and boxes that found nothing, scores at random."""
    rng = np.random.default_rng(seed)
    gts = {1: [(0, 0, 10, 10, 0), (20, 0, 30, 10, 0), (40, 0, 60, 20, 1)],
           2: [(5, 5, 35, 35, 0), (50, 50, 60, 80, 1)], 3: []}  # fmt: skip
    found = []
    for image_id, objects in gts.items():
        rows = []
        for *box, label in objects:
            for _ in range(4):
                size = np.array([box[2] - box[0], box[3] - box[1]] * 2)
                rows.append((*(np.array(box) + rng.normal(0, 0.08, 4) * size), rng.random(), label))
        rows.append((70, 70, 80, 95, rng.random(), rng.integers(3)))
        found.append(sample(image_id, rows))
    return found


def evaluate(found, ann_file, metric=None, **options):
    metric = metric or dict(type="MisalignmentMetric", ann_file=ann_file, **options)
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = META
    for part in found:
        evaluator.process([part])
    return evaluator.evaluate(len(found))


# Two objects of class 0 and one of class 1, all 10 x 10.
GT = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], float)
GT_LABELS = np.array([0, 0, 1])


def match(rows, threshold=0.5, crowd=None, gts=GT, labels=GT_LABELS):
    """rows: (x0, y0, x1, y1, score, label)."""
    rows = np.array(rows, float).reshape(-1, 6)
    (found,) = match_image(
        7,
        rows[:, :4],
        rows[:, 4],
        rows[:, 5].astype(int),
        ground_truth(gts, labels, crowd),
        [threshold],
    )
    return found


def ground_truth(gts=GT, labels=GT_LABELS, crowd=None):
    return ImageGroundTruth(gts, labels, np.zeros(len(gts), bool) if crowd is None else crowd)


# IoU with the first object: 1, 0.8, 0.3 and with nothing; then one of the wrong class.
ROWS = [
    (0, 0, 10, 8, 0.9, 0),
    (0, 0, 10, 10, 0.6, 0),
    (0, 0, 10, 3, 0.5, 0),
    (100, 100, 110, 110, 0.4, 0),
    (40, 0, 50, 10, 0.8, 0),
]
