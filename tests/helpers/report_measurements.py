"""Measurements for reports, without a detector: boxes drawn at random around objects on noise."""

import cv2
import numpy as np

from misalign_det.analysis.report.measurement import MeasuredImage, Measurement
from misalign_det.analysis.report.resampling import Resampling
from misalign_det.analysis.report.worst_images import WorstImage
from misalign_det.evaluation.coco_ap import index_annotations
from misalign_det.evaluation.score_alignment import ScoreAlignment

CLASSES = ("disc", "box", "<star>")


def make_measurement(folder, seed=0, count=8, size=(160, 128), boxes=30, resamples=20):
    """A measurement of images of noise.

    Args:
        folder: for the image files; images that are there stay.
        seed: of the boxes; the objects are always the same.
        count: number of images.
        size: of the images, width and height.
        boxes: per image.
        resamples: for intervals.
    """
    width, height = size
    rng = np.random.default_rng(7)
    images, objects, pixels = [], [], []
    for number in range(count):
        path = folder / f"{number:04d}.png"
        if not path.exists():
            cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        pixels.append(str(path))
        images.append(dict(id=number, file_name=path.name, width=width, height=height))
        for k in range(4):
            w, h = rng.uniform(0.2, 0.7) * width, rng.uniform(0.2, 0.7) * height
            box = [rng.uniform(0, width - w), rng.uniform(0, height - h), w, h]
            objects.append(dict(id=4 * number + k + 1, image_id=number, bbox=box, area=w * h,
                                category_id=int(rng.integers(len(CLASSES)))))  # fmt: skip
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    coco = index_annotations(dict(images=images, annotations=objects, categories=categories))
    alignment, measured, first = ScoreAlignment(coco, CLASSES), [], 0
    rng = np.random.default_rng(seed)
    for number in range(count):
        own = [objects[4 * number + k] for k in range(4)]
        gts = np.array([[x, y, x + w, y + h] for x, y, w, h in (o["bbox"] for o in own)])
        chosen = rng.integers(4, size=boxes)
        found = gts[chosen] + rng.normal(0, 0.08 * width, (boxes, 4))
        found = np.concatenate([np.minimum(found[:, :2], found[:, 2:] - 1), found[:, 2:]], axis=1)
        labels = np.array([own[k]["category_id"] for k in chosen])
        scores = rng.uniform(0.02, 1, boxes)
        alignment.update(number, dict(bboxes=found, scores=scores, labels=labels))
        gt_labels = np.array([o["category_id"] for o in own])
        measured.append(MeasuredImage(pixels[number], gts, gt_labels, first, first + boxes))
        first += boxes
    result = alignment.compute()
    gap = dict(group="stride 8", objects=4, pixels=9.0, strides=1.1, other_level=0.0,
               iou_at_class_peak=0.7, best_iou=0.8)  # fmt: skip
    own = measured[0]
    return Measurement(
        metrics=result.metrics(classwise=True), classes=CLASSES, detections=result.detections,
        bboxes=result.bboxes, images=measured,
        resampled=Resampling(coco, CLASSES, resamples).alignment(result),
        ann_file="instances_val.json", score_thr=0.02, gaps=[dict(gap, group="all levels"), gap],
        worst=[WorstImage(own.path, own.gt_bboxes, own.gt_bboxes[:1], own.gt_bboxes[:1] + 3, 0.2)],
    )  # fmt: skip
