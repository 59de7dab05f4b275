"""The data behind the report's charts and its viewer, as JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.coco_matching import MatchedDetections
from ..spatial_gap import size_class
from .measurement import Measurement
from .pictures import embedded, images_of_class

KINDS = ("correct", "redundant", "error", "background")
SIZES = ("small", "medium", "large")
MAX_DOTS = 3000  # per detector: more hide one another, and make the page slow
MIN_SHOWN = 0.01  # score of a box in the viewer
STEP = 0.02  # of the score threshold


class PageData:
    """What the page's script reads, built in two steps: charts first, then images one by one.

    Args:
        names: of the detectors.
        measured: per detector.
    """

    def __init__(self, names: Sequence[str], measured: Sequence[Measurement]) -> None:
        self.measured = measured
        paths = dict.fromkeys(image.path for found in measured for image in found.images)
        self.ids = {path: number for number, path in enumerate(paths)}
        self._rows = [{image.path: image for image in found.images} for found in measured]
        self._tables = [_table(found, self.ids) for found in measured]
        labels = range(len(measured[0].classes))
        self._of_classes = [images_of_class(measured, label) for label in labels]
        self.images: dict[int, dict[str, Any]] = {}
        self._charts = dict(
            classes=list(measured[0].classes),
            kinds=list(KINDS),
            sizes=list(SIZES),
            step=STEP,
            detectors=[
                dict(
                    name=name,
                    overlapping=len(_overlapping(found)),
                    counts=_counts(found, table),
                    dots=_dots(found, table),
                    reliability=reliability(found.detections),
                    gaps={row["group"]: _rounded(row["strides"]) for row in found.gaps},
                    headroom=_headroom(found),
                )
                for name, found, table in zip(names, measured, self._tables)
            ],
        )

    def image(self, path: str) -> dict[str, Any]:
        """An image with the objects and the boxes of all detectors.

        Args:
            path: of the image file, one of ``ids``.

        Returns:
            ``file``, its name; ``width`` and ``height`` in pixels; ``picture``, a data URI;
            ``gts``, ``[x0, y0, x1, y1, class]`` each; per detector ``boxes``, ``[x0, y0, x1, y1,
            class, score, IoU, kind, size, row]`` each.
        """
        uri, width, height = embedded(path)
        rows = [images.get(path) for images in self._rows]
        own = next(image for image in rows if image is not None)
        if not uri:  # boxes on an empty canvas
            every = [own.gt_bboxes, np.ones((1, 4))]
            every += [m.bboxes[r.first : r.end] for m, r in zip(self.measured, rows) if r]
            width, height = np.ceil(np.concatenate(every)[:, 2:].max(axis=0)).astype(int).tolist()
        return dict(
            file=Path(path).name,
            width=width,
            height=height,
            picture=uri,
            gts=[
                [*(_rounded(x, 1) for x in box), int(label)]
                for box, label in zip(own.gt_bboxes, own.gt_labels)
            ],
            boxes=[
                _boxes(found, table, image.first, image.end) if image else []
                for found, table, image in zip(self.measured, self._tables, rows)
            ],
        )

    def json(self) -> str:
        """Charts and the images in :attr:`images`, safe inside a ``<script>``.

        ``classes``, ``kinds`` and ``sizes`` are names by index. A detector has ``counts``,
        ``[class, size, kind, score in STEPs, number]`` over all boxes, and ``dots``, a sample of
        the ``overlapping`` ones in columns: ``box``, ``image``, ``iou``, ``score``, ``label``,
        ``size``, ``kind``.
        ``order`` has the keys of ``images`` per class, the most wrongly ranked first.
        """
        order = [
            [self.ids[path] for path in images if self.ids[path] in self.images]
            for images in self._of_classes
        ]
        return as_json(dict(self._charts, images=self.images, order=order))


def as_json(content: Any) -> str:
    """Compact JSON without ``</``, which would end a script, and without NaN."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


def kinds_of(detections: MatchedDetections) -> np.ndarray:
    """Index in ``KINDS`` of each box, as ``box_counts`` counts them, ``(D,)``."""
    overlaps = detections.overlaps
    kinds = np.where(overlaps >= 0.5, 1, np.where(overlaps > 0.1, 2, 3))
    return np.where(detections.true_positive, 0, kinds)


def reliability(detections: MatchedDetections, bins: int = 10) -> dict[str, list[float]]:
    """Mean score and mean IoU with the matched GT, 0 for a false positive, per bin of the score.

    Args:
        detections: ignored ones do not count.
        bins: of equal width; an empty one is left out.

    Returns:
        ``score``, ``iou`` and ``boxes``, the number of boxes, per bin.
    """
    counted = detections[~detections.ignored]
    index = np.clip((counted.scores * bins).astype(int), 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    kept = counts > 0
    score, iou = (
        (np.bincount(index, value, bins)[kept] / counts[kept]).round(4).tolist()
        for value in (counted.scores, counted.matched_overlaps)
    )
    return dict(score=score, iou=iou, boxes=counts[kept].tolist())


def _table(found: Measurement, ids: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Kind, size and image of each box; the size is that of the box itself."""
    widths = found.bboxes[:, 2:] - found.bboxes[:, :2]
    areas = widths.prod(axis=1)
    return dict(
        kind=kinds_of(found.detections),
        size=np.array([SIZES.index(size_class(area)) for area in areas], np.int64),
        image=np.repeat(
            [ids[i.path] for i in found.images], [i.end - i.first for i in found.images]
        ),
    )


def _counts(found: Measurement, table: Mapping[str, np.ndarray]) -> list[list[int]]:
    boxes = found.detections
    counted = ~boxes.ignored
    steps = np.floor(boxes.scores / STEP + 1e-9).astype(int)
    columns = boxes.labels, table["size"], table["kind"], steps
    rows = Counter(zip(*(column[counted].tolist() for column in columns)))
    return [[*key, number] for key, number in sorted(rows.items())]


def _overlapping(found: Measurement) -> np.ndarray:
    """Rows of the boxes that are drawn, those that overlap an object of their class."""
    return np.flatnonzero(~found.detections.ignored & (found.detections.overlaps > 0.1))


def _dots(found: Measurement, table: Mapping[str, np.ndarray]) -> dict[str, list]:
    boxes = found.detections
    rows = _overlapping(found)
    if len(rows) > MAX_DOTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_DOTS, replace=False))
    return dict(
        box=rows.tolist(),
        image=table["image"][rows].tolist(),
        iou=boxes.overlaps[rows].round(3).tolist(),
        score=boxes.scores[rows].round(3).tolist(),
        label=boxes.labels[rows].tolist(),
        size=table["size"][rows].tolist(),
        kind=table["kind"][rows].tolist(),
    )


def _headroom(found: Measurement) -> list[list[float | None]]:
    """Value and ends of the interval per class, in AP."""
    rows = []
    for name in found.classes:
        part = found.resampled[f"headroom/{name}"]
        rows.append([_rounded(100 * value) for value in (part.value, *part.interval())])
    return rows


def _boxes(found: Measurement, table: Mapping[str, np.ndarray], first: int, end: int) -> list[list]:
    boxes = found.detections
    return [
        [
            *(_rounded(x, 1) for x in found.bboxes[row]),
            int(boxes.labels[row]),
            _rounded(boxes.scores[row], 3),
            _rounded(boxes.overlaps[row], 3),
            int(table["kind"][row]),
            int(table["size"][row]),
            row,
        ]
        for row in range(first, end)
        if boxes.scores[row] >= MIN_SHOWN
    ]


def _rounded(value: float, digits: int = 2) -> float | None:
    """For JSON, which has no NaN."""
    return None if value != value else round(float(value), digits)
