"""Class logits in float32 for the loss, whatever autocast computed them in."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """In float32, unless it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Float32LogitsMixin:
    """Before a dense head of mmdet's: its losses see the class logits in float32 or wider.

    mmcv's focal loss on CUDA has no bfloat16, and in float16 no number at a logit below -17.3 or
    above 8.3.
    """

    def loss_by_feat(self, cls_scores: list[Tensor], *args, **kwargs) -> dict:
        """mmdet's losses."""
        cls_scores = [at_least_float32(level) for level in cls_scores]
        return super().loss_by_feat(cls_scores, *args, **kwargs)
