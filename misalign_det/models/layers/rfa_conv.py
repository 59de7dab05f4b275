"""RFAConv2d: receptive field adaptor, a deformable convolution (Toward Minimal Misalignment)."""

from collections.abc import Iterable, Sequence

import torch
from mmcv.cnn import Conv2d, ConvModule
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...utils.validation import check_choice
from .deform_conv import auto_deform_conv2d, deform_levels

RFA_POSITIONS = ("first", "last")
PLAIN_CONVS = (nn.Conv2d, Conv2d)  # torch's, and mmcv's for empty batches


@MODELS.register_module()
class RFAConv2d(nn.Conv2d):
    """Receptive field adaptor: 3x3 deformable convolution with its own offset field.

    From "Toward Minimal Misalignment at Minimal Cost in One-Stage and Anchor-Free Object Detection"
    (arXiv 2112.08902). A standard 3x3 convolution, ``conv_offset``, predicts two offsets for each
    of the nine taps. It is initialised with zeros, so that the untrained layer equals the plain
    convolution of the same weights, and a checkpoint of the plain one loads into it.

    Args:
        in_channels, out_channels, bias: as in ``torch.nn.Conv2d``.
        kernel_size, stride, padding, dilation, groups: 3, 1, 1, 1 and 1, as mmcv's ``ConvModule``
            passes them.
        modulated: also predict a factor for each tap (Deformable ConvNets v2),
            ``2 * sigmoid(output)``, initially one.

    Raises:
        ValueError: another kernel size, stride, padding, dilation or number of groups.

    Shapes: ``(N, C_in, H, W)`` -> ``(N, C_out, H, W)``. Offsets are in feature cells.

    Example:
        As the ``conv_cfg`` of any ``ConvModule``, here of those in the towers of FCOS::

            _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
            custom_imports = dict(imports=['misalign_det'])
            model = dict(bbox_head=dict(conv_cfg=dict(type='RFAConv2d', modulated=False)))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        modulated: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        shape = (self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
        if shape != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
            raise ValueError(
                "RFAConv2d is a 3x3 convolution of stride 1, padding 1, dilation 1 and one "
                f"group; got kernel, stride, padding, dilation, groups = {shape}."
            )
        self.modulated = modulated
        self.conv_offset = nn.Conv2d(in_channels, 27 if modulated else 18, 3, padding=1)
        self.init_offset()

    def init_offset(self) -> None:
        """Reset the taps to the regular grid, each with factor one."""
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer with the given weights, into which mmcv and mmengine fold a batch norm."""
        offset, mask = self.offset_and_mask(input)
        return auto_deform_conv2d(input, offset, weight, mask, bias)

    def forward_levels(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """The layer on all pyramid levels at once; only where ``takes_all_levels`` is true.

        Args:
            xs: ``(N, C_in, H, W)`` per level.

        Returns:
            ``(N, C_out, H, W)`` per level.
        """
        offsets, masks = zip(*map(self.offset_and_mask, xs))
        masks = masks if self.modulated else ()
        return deform_levels(xs, offsets, self.weight, masks, self.bias)

    def offset_and_mask(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Offsets ``(N, 18, H, W)`` in feature cells, and factors ``(N, 9, H, W)`` or ``None``.

        In the dtype of the parameters under autocast, too.
        """
        # In half precision an offset of several cells is off by a hundredth of a cell or more.
        with torch.autocast(x.device.type, enabled=False):
            out = self.conv_offset(x.to(self.conv_offset.weight.dtype))
        if not self.modulated:
            return out, None
        offset, logits = out.split([18, 9], dim=1)
        return offset, 2 * logits.sigmoid()


def adapt_receptive_field(
    tower: Iterable[ConvModule], position: str = "first", modulated: bool = False
) -> None:
    """Replace one convolution of a head's tower by an :class:`RFAConv2d`.

    Args:
        tower: the ``ConvModule`` blocks of a branch, in order; changed in place.
        position: which block: ``'first'`` (as in the paper) or ``'last'``.
        modulated: see :class:`RFAConv2d`.

    Raises:
        ValueError: unknown position, an empty tower, or a convolution that an ``RFAConv2d`` cannot
            replace: of another type (``conv_cfg``, ``dcn_on_last_conv``), kernel size or stride.
    """
    check_choice("position", position, RFA_POSITIONS)
    blocks = list(tower)
    if not blocks:
        raise ValueError("The branch has no convolution to adapt: stacked_convs is too small.")
    block = blocks[0 if position == "first" else -1]
    conv = block.conv
    shape = [getattr(conv, name, None) for name in ("kernel_size", "stride", "padding", "groups")]
    if type(conv) not in PLAIN_CONVS or shape != [(3, 3), (1, 1), (1, 1), 1]:
        raise ValueError(
            f"The {position} convolution of the branch is {conv}. Only a plain 3x3 Conv2d can be "
            "adapted: change rfa_position, or drop conv_cfg or dcn_on_last_conv."
        )
    block.conv = RFAConv2d(
        conv.in_channels, conv.out_channels, bias=conv.bias is not None, modulated=modulated
    )


def init_offsets(module: nn.Module) -> None:
    """Reset every :class:`RFAConv2d` inside a module to the regular grid.

    For after an ``init_cfg`` that initialises every ``Conv2d``, the offset layers too.
    """
    for layer in module.modules():
        if isinstance(layer, RFAConv2d):
            layer.init_offset()
