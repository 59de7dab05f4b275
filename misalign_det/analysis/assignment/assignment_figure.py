"""The positives of an image over the image (paper B, figure 4)."""

import colorsys

import cv2
import numpy as np

from ...utils import to_rgb_image
from .assignment_statistics import ImageAssignment


def draw_assignment(
    image: np.ndarray, assignment: ImageAssignment, min_width: int = 640
) -> np.ndarray:
    """Each GT in a colour of its own with the locations that it trains, larger on coarser levels.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        assignment: of this image.
        min_width: smaller images are enlarged to it.

    Returns:
        uint8 RGB.
    """
    scale = max(1.0, min_width / image.shape[1])
    canvas = cv2.resize(to_rgb_image(image), None, fx=scale, fy=scale)
    colors = [_color(i) for i in range(len(assignment.gt_bboxes))]
    for box, color in zip(assignment.gt_bboxes.cpu().numpy() * scale, colors):
        x0, y0, x1, y1 = box.round().astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2)
    points = (assignment.points[assignment.prior_inds].cpu().numpy() * scale).round().astype(int)
    strides = assignment.strides[assignment.prior_inds].tolist()
    for (x, y), stride, gt in zip(points.tolist(), strides, assignment.gt_inds.tolist()):
        radius = max(2, int(stride * scale / 6))
        cv2.circle(canvas, (x, y), radius, colors[gt], -1)
        cv2.circle(canvas, (x, y), radius, (0, 0, 0), 1)
    return canvas


def _color(index: int) -> tuple[int, int, int]:
    """Colours far apart, the same for the same index: steps of the golden angle."""
    rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85, 1.0)
    return tuple(int(255 * part) for part in rgb)


PURPLE, GREEN = (160, 60, 220), (60, 190, 60)


def draw_positives_and_negatives(
    image: np.ndarray, bboxes: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> np.ndarray:
    """Predicted boxes of positives, purple, and of negatives, green, as in paper B's figure 4.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bboxes: predicted boxes, xyxy in pixels, ``(P, 4)``.
        positive, negative: which priors to draw, indices.

    Returns:
        uint8 RGB.
    """
    scale = max(1.0, 480 / image.shape[1])
    canvas = cv2.resize(to_rgb_image(image), None, fx=scale, fy=scale)
    for priors, color in ((negative, GREEN), (positive, PURPLE)):
        for box in bboxes[priors] * scale:
            x0, y0, x1, y1 = box.round().astype(int).tolist()
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 1)
    return canvas
