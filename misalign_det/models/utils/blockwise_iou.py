"""IoU of many pairs of boxes, block by block, with little temporary memory."""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from torch import Tensor

from ...utils.new_tensor import new_tensor_without_sync

PAIRS = 2**23  # pairs per block; mmdet's bbox_overlaps needs 36 bytes for each
FLAGS = 2**26  # elements per block of the mask in which pairs_from finds pairs, a byte each


class OverlapsInBlocks:
    """One of mmdet's IoU calculators, called for blocks of rows of its result.

    mmdet's ``bbox_overlaps`` needs nine times the memory of its result. Here this holds for one
    block of ``PAIRS`` pairs; besides it there is only the result, with the same values.

    Args:
        calculator: called with boxes ``(M, 4)`` and ``(N, 4)``, returns ``(M, N)``.
    """

    def __init__(self, calculator: Callable[..., Tensor]) -> None:
        self.calculator = calculator
        self.kept: Tensor | None = None
        self.keeps_next = False

    def keep_next(self) -> None:
        """Keep the next result in ``self.kept``: mmdet's assigner does not return it."""
        self.kept, self.keeps_next = None, True

    def forget(self) -> None:
        """Release the result that was kept."""
        self.kept, self.keeps_next = None, False

    def __call__(
        self, bboxes1: Tensor | BaseBoxes, bboxes2: Tensor | BaseBoxes, **kwargs: Any
    ) -> Tensor:
        """IoU, or what else ``mode`` says, of all pairs of boxes.

        Args:
            bboxes1, bboxes2: xyxy in pixels, ``(M, 4)`` and ``(N, 4)``, tensors or mmdet's boxes.
            **kwargs: passed to the calculator: ``mode`` and ``is_aligned`` of ``BboxOverlaps2D``.

        Returns:
            ``(M, N)``; ``(M,)`` with ``is_aligned``.
        """
        with new_tensor_without_sync(get_box_tensor(bboxes1)):
            overlaps = self._all_blocks(bboxes1, bboxes2, **kwargs)
        if self.keeps_next:
            self.kept, self.keeps_next = overlaps, False
        return overlaps

    def _all_blocks(
        self, bboxes1: Tensor | BaseBoxes, bboxes2: Tensor | BaseBoxes, **kwargs: Any
    ) -> Tensor:
        num_rows, in_block = len(bboxes1), max(PAIRS // max(len(bboxes2), 1), 1)
        if num_rows <= in_block or kwargs.get("is_aligned"):
            return self.calculator(bboxes1, bboxes2, **kwargs)
        overlaps: Tensor
        for first in range(0, num_rows, in_block):
            block = self.calculator(bboxes1[first : first + in_block], bboxes2, **kwargs)
            if first == 0:
                overlaps = block.new_empty(num_rows, block.shape[1])
            overlaps[first : first + in_block] = block
            del block  # before the next one needs its memory
        return overlaps


def pairs_from(overlaps: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Row and column indices of all values from ``least`` on, sorted by row, then by column.

    On a GPU each ``nonzero`` below is a host-device synchronisation: one per ``FLAGS`` values.

    Args:
        overlaps: ``(M, N)``.
        least: the smallest value that counts.

    Returns:
        Rows and columns, ``(E,)`` int64 each.
    """
    in_block = max(FLAGS // max(overlaps.shape[1], 1), 1)
    found = [(block >= least).nonzero() for block in overlaps.split(in_block)]
    for i, pairs in enumerate(found[1:], 1):
        pairs[:, 0] += i * in_block
    rows, columns = (found[0] if len(found) == 1 else torch.cat(found)).unbind(1)
    return rows, columns
