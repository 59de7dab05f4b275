"""Pictures of the positives of an image, as in figure 4 of the Triple-head Network paper."""

import colorsys

import cv2
import numpy as np

from ...utils import to_rgb_image
from .assignment_statistics import ImageAssignment


def draw_assignment(
    image: np.ndarray, assignment: ImageAssignment, min_width: int = 640
) -> np.ndarray:
    """Draw each GT and its positive locations in one colour, larger circles on coarser levels.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        assignment: of this image.
        min_width: narrower images are enlarged to this width in pixels.

    Returns:
        uint8 RGB, ``(h, w, 3)``.
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
    """The colour of a GT; steps of the golden angle keep the first ones far apart."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


PURPLE, GREEN = (160, 60, 220), (60, 190, 60)


def draw_positives_and_negatives(
    image: np.ndarray, bboxes: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> np.ndarray:
    """Draw the predicted boxes of positives in purple and of negatives in green.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bboxes: predicted boxes, xyxy in the same pixels, ``(P, 4)``.
        positive, negative: indices of the priors to draw.

    Returns:
        uint8 RGB, ``(h, w, 3)``.
    """
    scale = max(1.0, 480 / image.shape[1])
    canvas = cv2.resize(to_rgb_image(image), None, fx=scale, fy=scale)
    for priors, color in ((negative, GREEN), (positive, PURPLE)):
        for box in bboxes[priors] * scale:
            x0, y0, x1, y1 = box.round().astype(int).tolist()
            cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 1)
    return canvas
