"""FCOS without its centerness branch: baseline of `Triple-head Network`, table 5."""

from typing import Any

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from torch import Tensor

from .box_voting_head import BoxVotingMixin
from .float32_logits import Float32LogitsMixin
from .head_config_checks import check_levels, refuse_assigner
from .loss_aware_fcos_head import (
    BINARY_CROSS_ENTROPY,
    DISTANCE_CODER,
    FOCAL_LOSS,
    IOU_LOSS,
)

# mmdet's defaults of FCOSHead, with its scope.
FCOS_PARTS = dict(
    loss_cls=FOCAL_LOSS,
    loss_bbox=IOU_LOSS,
    loss_centerness=BINARY_CROSS_ENTROPY,
    bbox_coder=DISTANCE_CODER,
)


@MODELS.register_module()
class FCOSHeadWithoutCenterness(BoxVotingMixin, Float32LogitsMixin, FCOSHead):
    """mmdet's FCOS head and targets, "excluding the center branch".

    `A Triple-head Network with Loss-aware Label Assignment for Object Detection`, section 4.4.
    Every positive has the same weight in the box loss, and the score is the class probability.

    Args:
        *args, **kwargs: passed to mmdet's ``FCOSHead``.

    Raises:
        ValueError: ``train_cfg`` names an assigner of this package, which FCOS would not read.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(type='FCOSHeadWithoutCenterness'))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse_assigner(type(self), kwargs.get("train_cfg"))
        super().__init__(*args, **{**FCOS_PARTS, **kwargs})

    def _init_layers(self) -> None:
        super()._init_layers()
        # mmdet's forward calls the branch; the identity has no parameters.
        self.conv_centerness = torch.nn.Identity()

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits ``(N, C, H, W)`` and box distances ``(N, 4, H, W)`` per level."""
        check_levels(self, x)
        cls_scores, bbox_preds, _ = super().forward(x)
        return cls_scores, bbox_preds

    def loss_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """mmdet's losses without that of centerness."""
        blank = [cls_score[:, :1].detach() for cls_score in cls_scores]
        losses = super().loss_by_feat(cls_scores, bbox_preds, blank, *args, **kwargs)
        losses.pop("loss_centerness")
        return losses

    def centerness_target(self, pos_bbox_targets: Tensor) -> Tensor:
        """One for each positive, ``(E,)``: mmdet weights the box loss by it."""
        return pos_bbox_targets.new_ones(len(pos_bbox_targets))
