"""The images in which NMS loses most."""

from dataclasses import dataclass

import numpy as np

from ..nms_regret import SuppressionOutcome

MIN_SCORE = 0.3  # of a kept box that is shown
MIN_IOU_LOST = 0.05


@dataclass
class WorstImage:
    """An image with kept boxes and the better boxes that they suppressed.

    Attributes:
        path: of the image file.
        gt_bboxes: xyxy in pixels of the original image, ``(G, 4)``.
        kept, better: the kept box and the best box of its cluster, xyxy, ``(m, 4)`` each.
        iou_lost: IoU of ``better`` minus that of ``kept``, summed over the pairs.
    """

    path: str
    gt_bboxes: np.ndarray
    kept: np.ndarray
    better: np.ndarray
    iou_lost: float


class WorstImages:
    """Accumulates the images with the largest ``iou_lost``.

    A kept box counts if its score is at least ``MIN_SCORE`` and the best box of its cluster has an
    IoU larger by more than ``MIN_IOU_LOST``.

    Args:
        num: images kept.
    """

    def __init__(self, num: int = 6) -> None:
        self.num = num
        self._images: list[WorstImage] = []

    def update(self, path: str, gt_bboxes: np.ndarray, outcome: SuppressionOutcome) -> None:
        """Add one image.

        Args:
            path: of the image file.
            gt_bboxes: xyxy in pixels of the original image, ``(G, 4)``.
            outcome: from :meth:`~misalign_det.analysis.nms_regret.NMSRegret.update`.
        """
        lost = np.nan_to_num(outcome.best_iou - outcome.iou)
        pairs = np.flatnonzero((lost > MIN_IOU_LOST) & (outcome.scores >= MIN_SCORE))
        if len(pairs) == 0:
            return
        image = WorstImage(
            path,
            gt_bboxes,
            outcome.bboxes[pairs],
            outcome.best_bboxes[pairs],
            float(lost[pairs].sum()),
        )
        self._images = sorted([*self._images, image], key=lambda i: -i.iou_lost)[: self.num]

    def compute(self) -> list[WorstImage]:
        """Of the images seen, those that lose most, the worst first."""
        return self._images
