"""IoU of many pairs of boxes without temporary memory that grows with their number."""

from collections.abc import Callable

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from ...utils.new_tensor import new_tensor_without_sync

PAIRS = 2**23  # compared at once; mmdet's bbox_overlaps holds 36 bytes for each
FLAGS = 2**26  # bytes of the mask in which pairs are looked for at once


class OverlapsInBlocks:
    """An IoU calculator of mmdet's, called for some rows of its result after another.

    mmdet's ``bbox_overlaps`` holds nine times its result on the way. Here that is so for one block
    of ``PAIRS`` alone, and beside it there is only the result. Each number of it depends on one
    pair, so it is the same.

    Args:
        calculator: takes boxes ``(M, 4)`` and ``(N, 4)``, gives ``(M, N)``.
    """

    def __init__(self, calculator: Callable) -> None:
        self.calculator = calculator
        self.kept: Tensor | None = None
        self.keeps_next = False

    def keep_next(self) -> None:
        """Keep the next result in ``self.kept``: mmdet's assigner gives it to nobody."""
        self.kept, self.keeps_next = None, True

    def forget(self) -> None:
        """Release what was kept."""
        self.kept, self.keeps_next = None, False

    def __call__(self, bboxes1, bboxes2, **kwargs) -> Tensor:
        """See mmdet's ``BboxOverlaps2D``; ``kwargs`` are its ``mode`` and ``is_aligned``."""
        with new_tensor_without_sync(get_box_tensor(bboxes1)):
            overlaps = self._all_blocks(bboxes1, bboxes2, **kwargs)
        if self.keeps_next:
            self.kept, self.keeps_next = overlaps, False
        return overlaps

    def _all_blocks(self, bboxes1, bboxes2, **kwargs) -> Tensor:
        num_rows, in_block = len(bboxes1), max(PAIRS // max(len(bboxes2), 1), 1)
        if num_rows <= in_block or kwargs.get("is_aligned"):
            return self.calculator(bboxes1, bboxes2, **kwargs)
        overlaps = None
        for first in range(0, num_rows, in_block):
            block = self.calculator(bboxes1[first : first + in_block], bboxes2, **kwargs)
            if overlaps is None:
                overlaps = block.new_empty(num_rows, block.shape[1])
            overlaps[first : first + in_block] = block
            del block  # or it would be held beside what the next one needs
        return overlaps


def pairs_from(overlaps: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Row and column of each value from ``least`` on, ``(E,)`` both, in order of row and column.

    The ``nonzero`` here is where the host waits for the device: once for each ``FLAGS`` values.

    Args:
        overlaps: ``(M, N)``.
        least: the smallest value that counts.
    """
    in_block = max(FLAGS // max(overlaps.shape[1], 1), 1)
    found = [(block >= least).nonzero() for block in overlaps.split(in_block)]
    for i, pairs in enumerate(found[1:], 1):
        pairs[:, 0] += i * in_block
    return (found[0] if len(found) == 1 else torch.cat(found)).unbind(1)
