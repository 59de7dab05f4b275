"""RFAHead: a deformable convolution in each branch adapts its receptive field (paper A)."""

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.losses import GIoULoss
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import InstanceList, OptConfigType, OptInstanceList
from torch import Tensor, nn

from ...utils import new_tensor_without_sync
from ...utils.validation import check_choice
from ..layers import adapt_receptive_field, init_offsets
from .fcos_no_centerness_head import FCOS_PARTS
from .float32_logits import Float32LogitsMixin
from .head_config_checks import refuse_assigner
from .loss_aware_fcos_head import (
    BINARY_CROSS_ENTROPY,
    SCORE_MODES,
    DenseTargets,
    LossAwareFCOSHead,
    check_levels,
)


@MODELS.register_module()
class RFAHead(LossAwareFCOSHead):
    """FCOS's towers with a receptive field adaptor in each, and a quality branch.

    Paper A, arXiv 2112.08902. Classification and regression favour features of different extent;
    one convolution of each branch becomes deformable with its own offset field. With the offsets
    at zero, as they start, the head is FCOS. Made for :class:`SpatialAlignAssigner`; any assigner
    of this package will do.

    Args:
        rfa_position: which convolution of each branch is adapted, ``'first'`` (paper), ``'last'``
            or ``None``, FCOS's own towers.
        rfa_modulated: deformable v2; see
            :class:`~misalign_det.models.layers.rfa_conv.RFAConv2d`.
        with_quality: whether there is a branch that predicts the box's quality, the GIoU with its
            GT clamped to [0, 1]; without it, ``score_mode='class'``.
        quality_on: tower that feeds it, ``'regression'`` or ``'classification'``.
        score_mode: detection score, ``'geometric_mean'`` of class probability and quality,
            ``'product'``, or ``'class'`` probability alone. ``test_cfg.score_thr`` bounds the class
            probability in every mode.
        centerness_weight: whether the box loss of a positive is weighted by FCOS's centerness.
        loss_quality: binary cross entropy of weight 1 by default.
        loss_bbox: GIoU loss of weight 1 by default.
        others: those of :class:`LossAwareFCOSHead`.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        bbox_head = dict(
            type='RFAHead', num_classes=80, in_channels=256, strides=[8, 16, 32, 64, 128])
        train_cfg = dict(assigner=dict(type='SpatialAlignAssigner'))
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        rfa_position: str | None = "first",
        rfa_modulated: bool = False,
        with_quality: bool = True,
        quality_on: str = "regression",
        score_mode: str = "geometric_mean",
        centerness_weight: bool = True,
        loss_quality: OptConfigType = None,
        loss_bbox: OptConfigType = None,
        **kwargs,
    ) -> None:
        loss_quality = loss_quality or BINARY_CROSS_ENTROPY
        loss_bbox = loss_bbox or dict(type="mmdet.GIoULoss", loss_weight=1.0)
        check_choice("quality_on", quality_on, ("regression", "classification"))
        check_choice("score_mode", score_mode, SCORE_MODES)
        if not with_quality and score_mode != "class":
            raise ValueError(
                f"score_mode={score_mode!r} needs the quality branch: with_quality=False goes with "
                "score_mode='class'."
            )
        self.rfa_position = rfa_position
        self.rfa_modulated = rfa_modulated
        self.with_quality = with_quality
        self.quality_on = quality_on
        self.score_mode = score_mode
        self.centerness_weight = centerness_weight
        super().__init__(num_classes, in_channels, loss_bbox=loss_bbox, **kwargs)
        self.loss_quality = MODELS.build(loss_quality)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.with_quality:
            self.conv_quality = nn.Conv2d(self.feat_channels, 1, 3, padding=1)
        _adapt_branches(self)

    def init_weights(self) -> None:
        super().init_weights()
        init_offsets(self)

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, distances in pixels, and quality logits or ``None`` per level."""
        check_levels(self, x)
        cls_scores, log_distances, cls_feats, reg_feats = self.towers(x)
        qualities = [None] * len(x)
        if self.with_quality:
            feats = reg_feats if self.quality_on == "regression" else cls_feats
            qualities = [self.conv_quality(feat) for feat in feats]
        return cls_scores, self._pixel_distances(log_distances), qualities

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        qualities: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch; see :meth:`forward` for the outputs."""
        targets = self.get_targets(cls_scores, bbox_preds, batch_gt_instances)
        box_losses = self.box_losses(self.loss_bbox, targets, targets.bboxes)
        centerness = self.centerness(targets) if self.centerness_weight else None
        losses = dict(
            loss_cls=self.classification_loss(targets),
            loss_bbox=self.mean_over_positives(box_losses, targets, centerness),
        )
        if self.with_quality:
            losses["loss_quality"] = self.quality_loss(
                self.loss_quality, targets, qualities, self.quality(targets, box_losses)
            )
        return losses

    def quality(self, targets: DenseTargets, box_losses: Tensor) -> Tensor:
        """GIoU of each positive edge's box with its GT, clamped to [0, 1], ``(E,)``.

        Args:
            box_losses: ``loss_bbox`` of each, ``(E,)``. mmdet's ``GIoULoss`` is ``1 - GIoU``, which
                is then not computed again.
        """
        if type(self.loss_bbox) is GIoULoss and self.loss_bbox.loss_weight:
            giou = 1 - box_losses.detach() / self.loss_bbox.loss_weight
        else:
            bboxes = targets.bboxes[targets.prior_inds].detach()
            with new_tensor_without_sync(bboxes):
                giou = bbox_overlaps(bboxes, targets.gt_bboxes, mode="giou", is_aligned=True)
        return giou.clamp(0, 1)

    def centerness(self, targets: DenseTargets) -> Tensor:
        """FCOS's centerness of each positive edge's location in its GT, ``(E,)``."""
        location = targets.points[targets.prior_inds % len(targets.points)]
        top_left, bottom_right = targets.gt_bboxes.split(2, dim=1)
        near, far = location - top_left, bottom_right - location  # (E, 2), both positive
        return (torch.min(near, far) / torch.max(near, far)).prod(dim=1).sqrt()

    def predict_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], qualities: list[Tensor], **kwargs
    ) -> InstanceList:
        """Detections; the score is that of ``score_mode``."""
        return self.predict_with_quality(cls_scores, bbox_preds, qualities, **kwargs)


@MODELS.register_module()
class RFAFCOSHead(Float32LogitsMixin, FCOSHead):
    """mmdet's FCOS head with the receptive field adaptor alone: targets and losses are FCOS's.

    Args:
        rfa_position, rfa_modulated: see :class:`RFAHead`.
        others: those of mmdet's ``FCOSHead``.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        bbox_head = dict(
            type='RFAFCOSHead', num_classes=80, in_channels=256, strides=[8, 16, 32, 64, 128])
    """

    def __init__(
        self, *args, rfa_position: str | None = "first", rfa_modulated: bool = False, **kwargs
    ) -> None:
        self.rfa_position = rfa_position
        self.rfa_modulated = rfa_modulated
        refuse_assigner(type(self), kwargs.get("train_cfg"))
        super().__init__(*args, **{**FCOS_PARTS, **kwargs})

    def _init_layers(self) -> None:
        super()._init_layers()
        _adapt_branches(self)

    def init_weights(self) -> None:
        super().init_weights()
        init_offsets(self)

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """As mmdet's: class logits, distances and centerness logits a level."""
        check_levels(self, x)
        return super().forward(x)


def _adapt_branches(head: nn.Module) -> None:
    if head.rfa_position is not None:
        for tower in (head.cls_convs, head.reg_convs):
            adapt_receptive_field(tower, head.rfa_position, head.rfa_modulated)
