"""Average precision of a list of boxes, by pycocotools."""

import contextlib
import io

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval

from ..engine.annotation_checks import InputError


def load_annotations(ann_file: str) -> COCO:
    """The index of an annotation file, without pycocotools' messages."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(ann_file)


def category_ids(coco: COCO, classes) -> list[int]:
    """The file's category id of each class, in the classes' order.

    Raises:
        InputError: the file lacks a class.
    """
    ids = {category["name"]: category["id"] for category in coco.dataset["categories"]}
    missing = [name for name in classes if name not in ids]
    if missing:
        raise InputError(
            f"the annotation file has no category {missing[0]!r} (and {len(missing) - 1} others). "
            f"It has {sorted(ids)}. Give the classes of the detector under the file's names."
        )
    return [ids[name] for name in classes]


def average_precision(
    coco: COCO, image_ids, bboxes, scores, categories, category_order, max_dets: int = 100
) -> np.ndarray:
    """COCO's AP of each class, averaged over IoU 0.5 to 0.95.

    Args:
        coco, image_ids, bboxes, scores, categories, max_dets: as in :func:`matched_boxes`.
        category_order: category ids, in the order of the result.

    Returns:
        ``(len(category_order),)``; NaN for a class without objects.
    """
    evaluation = matched_boxes(
        coco, image_ids, bboxes, scores, categories, category_order, max_dets
    )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    # (IoU, recall, class, area, max_dets); -1 where a class has no object.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    precision = np.where(precision > -1, precision, np.nan)
    means = [column.mean() for column in np.moveaxis(precision, 2, 0)]
    by_category = dict(zip(evaluation.params.catIds, means))  # COCOeval has sorted them
    return np.array([by_category[category] for category in category_order])


def matched_boxes(
    coco: COCO, image_ids, bboxes, scores, categories, counted, max_dets: int = 100
) -> COCOeval:
    """pycocotools' evaluation of boxes of any size, matched image by image, not yet accumulated.

    Args:
        coco: annotations.
        image_ids, scores, categories: of the boxes, ``(D,)``; categories by id.
        bboxes: xyxy in pixels, ``(D, 4)``.
        counted: category ids that count.
        max_dets: boxes an image that count, those of largest score.
    """
    rows = [
        dict(
            image_id=int(image),
            bbox=[float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
            score=float(score),
            category_id=int(category),
        )
        for image, (x0, y0, x1, y1), score, category in zip(image_ids, bboxes, scores, categories)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(rows) if rows else COCO(), "bbox")
        evaluation.params.catIds = list(counted)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
    return evaluation
