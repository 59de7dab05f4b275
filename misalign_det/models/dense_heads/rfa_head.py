"""RFAHead and RFAFCOSHead: a deformable convolution in each branch adapts its receptive field."""

from collections.abc import Iterable
from typing import Any

from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType
from torch import Tensor

from ...utils.old_names import renamed_arguments
from ..layers import adapt_receptive_field, init_offsets
from ..utils.pretrained import load_pretrained
from .box_voting_head import BoxVotingMixin
from .fcos_no_centerness_head import FCOS_PARTS
from .float32_logits import Float32LogitsMixin
from .head_config_checks import check_levels, refuse_assigner
from .loss_aware_fcos_head import LossAwareFCOSHead

GIOU_LOSS = dict(type="mmdet.GIoULoss", loss_weight=1.0)


@MODELS.register_module()
@renamed_arguments(
    with_quality="with_iou_branch", quality_on="iou_branch_on", loss_quality="loss_iou"
)
class RFAHead(LossAwareFCOSHead):
    """:class:`LossAwareFCOSHead` with a receptive field adaptor (RFA) in each tower.

    `Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object Detection`,
    arXiv 2112.08902. Classification and regression favour features of different extent; one
    convolution of each tower becomes deformable with its own offset field. The offsets start at
    zero, so that at first it computes what FCOS does. The IoU branch, the paper's quality branch,
    predicts the GIoU of each box with its GT. Made for :class:`SpatialAlignAssigner`;
    :class:`JLAAssigner` fits, too.

    Args:
        num_classes: without background.
        in_channels: of each level of the neck's output, ``(N, in_channels, H, W)``.
        rfa_position: which convolution of each tower is adapted, ``'first'`` (paper), ``'last'``
            or ``None``, FCOS's own towers.
        rfa_modulated: deformable convolution v2; see
            :class:`~misalign_det.models.layers.rfa_conv.RFAConv2d`.
        with_iou_branch, iou_mode, score_mode, centerness_weight: see :class:`LossAwareFCOSHead`,
            with the paper's choices as defaults.
        loss_bbox: GIoU loss of weight 1 by default.
        **kwargs: passed to :class:`LossAwareFCOSHead`.

    Raises:
        ValueError: as :class:`LossAwareFCOSHead`; or the convolution at ``rfa_position`` is
            deformable already.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(
                _delete_=True, type='RFAHead', num_classes=80, in_channels=256,
                strides=[8, 16, 32, 64, 128]),
            train_cfg=dict(assigner=dict(type='SpatialAlignAssigner')))
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        rfa_position: str | None = "first",
        rfa_modulated: bool = False,
        with_iou_branch: bool = True,
        iou_mode: str = "giou",
        score_mode: str = "geometric_mean",
        centerness_weight: bool = True,
        loss_bbox: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        self.rfa_position = rfa_position
        self.rfa_modulated = rfa_modulated
        super().__init__(
            num_classes,
            in_channels,
            with_iou_branch=with_iou_branch,
            iou_mode=iou_mode,
            score_mode=score_mode,
            centerness_weight=centerness_weight,
            loss_bbox=loss_bbox or GIOU_LOSS,
            **kwargs,
        )

    def _init_layers(self) -> None:
        super()._init_layers()
        adapt_branches(self.rfa_position, self.rfa_modulated, self.cls_convs, self.reg_convs)

    def _set_initial_outputs(self) -> None:
        super()._set_initial_outputs()
        init_offsets(self)


@MODELS.register_module()
class RFAFCOSHead(BoxVotingMixin, Float32LogitsMixin, FCOSHead):
    """mmdet's FCOS head with the receptive field adaptor alone; targets and losses are FCOS's.

    Args:
        *args: passed to mmdet's ``FCOSHead``.
        rfa_position, rfa_modulated: see :class:`RFAHead`.
        **kwargs: passed to mmdet's ``FCOSHead``.

    Raises:
        ValueError: ``train_cfg`` names an assigner of this package, which FCOS would not read.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(type='RFAFCOSHead'))
    """

    def __init__(
        self,
        *args: Any,
        rfa_position: str | None = "first",
        rfa_modulated: bool = False,
        **kwargs: Any,
    ) -> None:
        self.rfa_position = rfa_position
        self.rfa_modulated = rfa_modulated
        refuse_assigner(type(self), kwargs.get("train_cfg"))
        super().__init__(*args, **{**FCOS_PARTS, **kwargs})

    def _init_layers(self) -> None:
        super()._init_layers()
        adapt_branches(self.rfa_position, self.rfa_modulated, self.cls_convs, self.reg_convs)

    def init_weights(self) -> None:
        """Offset fields at zero, all other weights by ``init_cfg``."""
        super().init_weights()
        init_offsets(self)
        load_pretrained(self)  # of init_cfg, over the offset fields that were just set

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits ``(N, C, H, W)``, distances ``(N, 4, H, W)``, centerness per level."""
        check_levels(self, x)
        return super().forward(x)


def adapt_branches(
    rfa_position: str | None, rfa_modulated: bool, *towers: Iterable[ConvModule]
) -> None:
    """Make the convolution at ``rfa_position`` of each tower an RFA layer, or none at ``None``."""
    if rfa_modulated and rfa_position is None:
        raise ValueError("rfa_modulated needs rfa_position='first' or 'last': there is no adaptor.")
    if rfa_position is not None:
        for tower in towers:
            adapt_receptive_field(tower, rfa_position, rfa_modulated)
