"""Pictures of the positives of an image, as in figure 4 of the Triple-head Network paper."""

import cv2
import numpy as np

from ...utils import to_rgb_image
from ..figure_parts import score_tags, text_band
from ..palette import COLORS, GREEN, PURPLE, rgb
from .assignment_statistics import ImageAssignment


def draw_assignment(
    image: np.ndarray, assignment: ImageAssignment, min_width: int = 640
) -> np.ndarray:
    """Draw each GT and its positive locations, larger marks on coarser levels.

    A GT and its positives have one number, one colour and one shape; a line of text below the
    picture says so.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        assignment: of this image.
        min_width: narrower images are enlarged to this width in pixels.

    Returns:
        uint8 RGB, ``(h, w, 3)``, with the line of text.
    """
    scale = max(1.0, min_width / image.shape[1])
    canvas = cv2.resize(to_rgb_image(image), None, fx=scale, fy=scale)
    corners = []
    for gt, box in enumerate(assignment.gt_bboxes.cpu().numpy() * scale):
        x0, y0, x1, y1 = box.round().astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), rgb(_color(gt)), 2)
        corners.append((x0, y0))
    points = (assignment.points[assignment.prior_inds].cpu().numpy() * scale).round().astype(int)
    strides = assignment.strides[assignment.prior_inds].tolist()
    for (x, y), stride, gt in zip(points.tolist(), strides, assignment.gt_inds.tolist()):
        _mark(canvas, (x, y), max(3, int(stride * scale / 6)), gt)
    score_tags(canvas, [(corner, str(gt), _color(gt)) for gt, corner in enumerate(corners)])
    legend = [
        (
            f"{len(corners)} objects, numbered; marks of the same colour and shape: positives",
            None,
            1,
        ),
        ("larger mark: coarser level", None, 1),
    ]
    return np.concatenate([canvas, text_band(canvas.shape[1], legend)])


def _color(gt: int) -> str:
    return COLORS[gt % len(COLORS)]


def _mark(canvas: np.ndarray, center: tuple[int, int], radius: int, gt: int) -> None:
    """A filled circle, square, triangle or diamond with a black edge, by the index of the GT."""
    shape = gt % 4
    if shape == 0:
        cv2.circle(canvas, center, radius, rgb(_color(gt)), -1)
        cv2.circle(canvas, center, radius, (0, 0, 0), 1)
        return
    corners = {
        1: [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        2: [(0, -1), (1, 1), (-1, 1)],
        3: [(0, -1), (1, 0), (0, 1), (-1, 0)],
    }[shape]
    outline = (np.array(center) + radius * np.array(corners)).astype(np.int32)
    cv2.fillPoly(canvas, [outline], rgb(_color(gt)))
    cv2.polylines(canvas, [outline], True, (0, 0, 0), 1)


def draw_positives_and_negatives(
    image: np.ndarray, bboxes: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> np.ndarray:
    """Draw the predicted boxes of positives, thick and purple, and of negatives, thin and green.

    Args:
        image: in pixels of the network input; see :func:`~misalign_det.utils.to_rgb_image`.
        bboxes: predicted boxes, xyxy in the same pixels, ``(P, 4)``.
        positive, negative: indices of the priors to draw.

    Returns:
        uint8 RGB, ``(h, w, 3)``.
    """
    scale = max(1.0, 480 / image.shape[1])
    canvas = cv2.resize(to_rgb_image(image), None, fx=scale, fy=scale)
    for priors, color, width in ((negative, GREEN, 1), (positive, PURPLE, 2)):
        for box in bboxes[priors] * scale:
            x0, y0, x1, y1 = box.round().astype(int).tolist()
            cv2.rectangle(canvas, (x0, y0), (x1, y1), rgb(color), width)
    return canvas
