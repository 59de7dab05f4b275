"""Class logits in float32 for the loss, whatever autocast computed them in."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # what the mixin is combined with
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead as _Head
else:
    _Head = object


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Float32LogitsMixin(_Head):
    """Base class ahead of one of mmdet's dense heads: its losses get class logits in float32.

    mmcv's focal loss on CUDA has no bfloat16, and in float16 no number at a logit below -17.3 or
    above 8.3.
    """

    def loss_by_feat(self, cls_scores: list[Tensor], *args: Any, **kwargs: Any) -> dict:
        """mmdet's losses.

        Args:
            cls_scores: class logits per level.
            *args, **kwargs: the head's other outputs and ground truths, as they are.
        """
        cls_scores = [at_least_float32(level) for level in cls_scores]
        return super().loss_by_feat(cls_scores, *args, **kwargs)
