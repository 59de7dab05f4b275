"""The images that the report embeds: which ones, and as small JPEG files."""

import base64
from collections.abc import Sequence
from itertools import zip_longest

import cv2
import mmcv
import numpy as np
from scipy.stats import rankdata

from .measurement import Measurement

MAX_SIDE = 640  # pixels
MAX_PICTURES = 60


def choose_images(measured: Sequence[Measurement], most: int = MAX_PICTURES) -> list[str]:
    """The images worth a look, the most telling first.

    These are the images in which NMS loses most, then for each class in turn the images with the
    boxes whose rank by score is farthest from their rank by IoU.

    Args:
        measured: per detector.
        most: number of images.

    Returns:
        Paths of the files.
    """
    chosen = dict.fromkeys(image.path for found in measured for image in found.worst)
    queues = [images_of_class(measured, label) for label in range(len(measured[0].classes))]
    for turn in zip_longest(*queues):
        chosen |= dict.fromkeys(path for path in turn if path is not None)
        if len(chosen) >= most:
            break
    return list(chosen)[:most]


def images_of_class(measured: Sequence[Measurement], label: int) -> list[str]:
    """Images with boxes on objects of a class, the most wrongly ranked first.

    Args:
        measured: per detector; the images of one and the other take turns.
        label: class index.

    Returns:
        Paths of the files, each once.
    """
    turns = zip_longest(*(_most_discordant(found, label) for found in measured))
    return list(dict.fromkeys(path for turn in turns for path in turn if path is not None))


def _most_discordant(found: Measurement, label: int) -> list[str]:
    """Files of the images with boxes of a class on objects, the most wrongly ranked first."""
    boxes = found.detections
    rows = np.flatnonzero((boxes.labels == label) & (boxes.overlaps >= 0.5) & ~boxes.ignored)
    if len(rows) == 0:
        return []
    ranks = (rankdata(values[rows]) for values in (boxes.scores, boxes.overlaps))
    discord = np.abs(np.subtract(*ranks))
    images = np.repeat(np.arange(len(found.images)), [i.end - i.first for i in found.images])[rows]
    largest = np.zeros(len(found.images))
    np.maximum.at(largest, images, discord)
    order = np.argsort(-largest, kind="stable")[: len(set(images.tolist()))]
    return [found.images[i].path for i in order]


def embedded(path: str) -> tuple[str, int, int]:
    """An image as a data URI, at most ``MAX_SIDE`` pixels wide and high.

    Args:
        path: of the image file.

    Returns:
        ``data:image/jpeg;base64,...``, width and height of the original in pixels; ``('', 0, 0)``
        for a file that OpenCV cannot read.
    """
    pixels = mmcv.imread(path)
    if pixels is None:
        return "", 0, 0
    height, width = pixels.shape[:2]
    scale = min(1.0, MAX_SIDE / max(width, height))
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    uri = "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()
    return uri, width, height
