"""TripleHead: a pre-regression branch that guides classification and regression."""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, Scale
from mmdet.registry import MODELS
from mmdet.utils import InstanceList, OptConfigType, OptInstanceList
from torch import Tensor, nn

from ...utils.compiler import exporting
from ...utils.old_names import renamed_arguments
from ...utils.validation import check_choice
from ..layers import (
    AutoDeformConv2d,
    deform_levels,
    init_offsets,
    run_tower,
    star_dcn_offset,
    takes_all_levels,
)
from ..layers.star_offsets import OFFSET_MODES
from ..task_modules.assigners.batch_assigner import check_box_loss
from ..utils.multi_level import join_levels, scaled_levels, split_levels
from .distances import exp_distance
from .head_config_checks import check_levels, without_delete_keys
from .loss_aware_fcos_head import IOU_LOSS, LossAwareFCOSHead
from .rfa_head import adapt_branches
from .sparse_refinement import detectable_levels, guided_around


@MODELS.register_module()
@renamed_arguments(
    offset_gradient="gradient_mul",
    confidence_target="iou_target",
    with_confidence="with_iou_branch",
    loss_confidence="loss_iou",
)
class TripleHead(LossAwareFCOSHead):
    """Three branches: pre-regression (coarse box and its IoU), classification, regression.

    `A Triple-head Network with Loss-aware Label Assignment for Object Detection`, section 3.3.
    Pre-regression has ``stacked_convs`` conv-GN-ReLU blocks; the other two have one less, then a
    3x3 deformable convolution without bias and norm whose taps sit on the coarse box (eq. 7). The
    final distances are ``exp(scale * output) x coarse`` (eq. 8). The IoU branch, the paper's
    confidence, shares the features of the coarse box. With the defaults on R50-FPN the model has
    34,614,307 parameters, not counting the backbone's BN weights, which is the paper's figure.

    Args:
        num_classes: without background.
        in_channels: of each level of the neck's output, ``(N, in_channels, H, W)``.
        offset_mode: ``'box'`` or ``'grid_plus_box'``, the two readings of eq. 7; see
            :func:`~misalign_det.models.layers.star_dcn_offset`.
        gradient_mul: factor on the gradient into the coarse box through the offsets.
        guided_branches: ``'both'`` (the paper), or ``'regression'``: classification then has
            ``stacked_convs`` conv-GN-ReLU blocks on the regular grid. Locations of one object,
            whose coarse boxes agree, then read different features and can get different scores.
        cls_shortcut: add the features before the classification branch's guided layer to its
            output, as in a residual block, so that a class score reads the location itself beside
            the coarse box. The paper has no shortcut.
        refine_mode: ``'multiply'`` (eq. 8), ``'add'``: coarse + output in strides, or ``'none'``:
            the coarse box is the final one, and there is no regression branch (table 5 without box
            refinement). ``loss_bbox`` is then its loss, and ``loss_bbox_coarse`` is not read. A
            regression branch could not do without it: its taps sit on the coarse box and tell it
            nothing of where in the box the location is (see configs/papers.md).
        refine_detach: whether eq. 8 stops the gradient into the coarse box.
        with_iou_branch, score_mode: see :class:`LossAwareFCOSHead`, with the paper's choices as
            defaults.
        iou_target: the IoU branch is trained towards the IoU of the ``'coarse'`` or the
            ``'refined'`` box with its GT.
        assign_boxes: which boxes drive the assigner, ``'coarse'`` or ``'refined'``. Under the
            refined ones the coarse box learns slowly, and with it everything that it guides: after
            three epochs on BCCD its loss was 0.67, under its own 0.47 (see configs/bccd.md).
        rfa_position, rfa_modulated: a receptive field adaptor in one conv-GN-ReLU block of each
            branch, which the paper does not have; see :class:`RFAHead`.
        loss_bbox_coarse: loss of the coarse box, IoU loss of weight 1 by default.
        sparse_refinement: at inference, refine boxes only where ``test_cfg`` lets a detection
            through (``score_thr``, ``nms_pre``); elsewhere the coarse box stands. The detections
            are the same up to rounding. Read from the head's own ``test_cfg``; an export refines
            everywhere.
        **kwargs: passed to :class:`LossAwareFCOSHead`. ``init_distance`` is what the untrained
            coarse box reaches on every side.

    Raises:
        ValueError: as :class:`LossAwareFCOSHead`; its ``iou_branch_on``, ``centerness_weight`` or
            mmdet's ``dcn_on_last_conv`` is set, which it does not support; ``cls_shortcut`` has
            no guided layer, or one with another number of channels; or ``refine_mode`` is
            ``'none'`` and an option is of the regression branch.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(
                _delete_=True, type='TripleHead', num_classes=80, in_channels=256,
                strides=[8, 16, 32, 64, 128]),
            train_cfg=dict(assigner=dict(type='JLAAssigner', topk=35, theta=0.6)))
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        offset_mode: str = "box",
        gradient_mul: float = 0.1,
        guided_branches: str = "both",
        cls_shortcut: bool = False,
        refine_mode: str = "multiply",
        refine_detach: bool = True,
        with_iou_branch: bool = True,
        iou_target: str = "coarse",
        score_mode: str = "product",
        assign_boxes: str = "coarse",
        rfa_position: str | None = None,
        rfa_modulated: bool = False,
        sparse_refinement: bool = False,
        loss_bbox_coarse: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        check_choice("offset_mode", offset_mode, OFFSET_MODES)
        check_choice("guided_branches", guided_branches, ("both", "regression"))
        check_choice("refine_mode", refine_mode, ("multiply", "add", "none"))
        check_choice("iou_target", iou_target, ("coarse", "refined"))
        check_choice("assign_boxes", assign_boxes, ("refined", "coarse"))
        self.offset_mode = offset_mode
        self.gradient_mul = gradient_mul
        self.guided_branches = guided_branches
        self.cls_shortcut = cls_shortcut
        self.refine_mode = refine_mode
        self.refine_detach = refine_detach
        self.iou_target = iou_target
        self.assign_boxes = assign_boxes
        self.rfa_position = rfa_position
        self.rfa_modulated = rfa_modulated
        self.sparse_refinement = sparse_refinement
        super().__init__(
            num_classes,
            in_channels,
            with_iou_branch=with_iou_branch,
            score_mode=score_mode,
            **kwargs,
        )
        if not self.refines:
            for name, default in dict(
                guided_branches="both", refine_detach=True, sparse_refinement=False
            ).items():
                if getattr(self, name) != default:
                    raise ValueError(
                        "with refine_mode='none' TripleHead has no regression branch and does not "
                        f"read {name}. Drop it, or write refine_mode='multiply'."
                    )
        if cls_shortcut and guided_branches != "both":
            raise ValueError("cls_shortcut needs guided_branches='both': there is no guided layer.")
        if cls_shortcut and self.stacked_convs == 1 and in_channels != self.feat_channels:
            raise ValueError(
                f"cls_shortcut adds features of {in_channels} channels (in_channels) to "
                f"{self.feat_channels} (feat_channels) where stacked_convs is 1; make them equal."
            )
        for name in ("dcn_on_last_conv", "centerness_weight", "iou_branch_on"):
            if kwargs.get(name):
                raise ValueError(
                    f"TripleHead does not read {name}: its guided layers are deformable, its IoU "
                    "branch is on the coarse box, and it has no centerness. Drop it."
                )
        self.loss_bbox_coarse = MODELS.build(without_delete_keys(loss_bbox_coarse or IOU_LOSS))
        check_box_loss(self.loss_bbox_coarse, "loss_bbox_coarse")

    @property
    def refines(self) -> bool:
        """Whether there is a regression branch, whose box is not the coarse one."""
        return self.refine_mode != "none"

    def _init_layers(self) -> None:
        self.pre_convs = self._conv_blocks(self.stacked_convs)
        self.conv_coarse = nn.Conv2d(self.feat_channels, 4, 3, padding=1)
        self._init_iou_branch()
        guided_cls = self.guided_branches == "both"
        self.cls_convs = self._conv_blocks(self.stacked_convs - guided_cls)
        towers = [self.pre_convs, self.cls_convs]
        width = self.in_channels if self.stacked_convs == 1 else self.feat_channels
        if self.refines:
            self.reg_convs = self._conv_blocks(self.stacked_convs - 1)
            towers.append(self.reg_convs)
        if guided_cls:
            self.cls_guided = AutoDeformConv2d(width, self.feat_channels)
        if self.refines:
            self.reg_guided = AutoDeformConv2d(width, self.feat_channels)
        self._init_predictor()
        if self.refines:
            self.scales = nn.ModuleList(Scale(1.0) for _ in self.strides)
        else:
            del self.conv_reg
        self.coarse_scales = nn.ModuleList(Scale(1.0) for _ in self.strides)
        adapt_branches(self.rfa_position, self.rfa_modulated, *towers)

    def _conv_blocks(self, num: int) -> nn.Sequential:
        return nn.Sequential(
            *[
                ConvModule(
                    self.in_channels if i == 0 else self.feat_channels,
                    self.feat_channels,
                    3,
                    padding=1,
                    conv_cfg=self.conv_cfg,
                    norm_cfg=self.norm_cfg,
                    bias=self.conv_bias,
                )
                for i in range(num)
            ]
        )

    def _set_initial_outputs(self) -> None:
        self._set_init_distance(self.conv_coarse)
        if self.refines:
            # An untrained refinement keeps the coarse box: noise on it would decide which
            # locations the assigner takes first.
            nn.init.zeros_(self.conv_reg.weight)
            nn.init.zeros_(self.conv_reg.bias)
        init_offsets(self)

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Outputs per level.

        Args:
            x: features ``(N, D, H, W)`` per level.

        Returns:
            Class logits ``(N, C, H, W)``, refined distances in pixels ``(N, 4, H, W)``, IoU logits
            ``(N, 1, H, W)``, None without an IoU branch, and coarse distances in pixels
            ``(N, 4, H, W)``.
        """
        check_levels(self, x)
        log_coarse, iou_preds = self._pre_outputs(run_tower(self.pre_convs, x))
        coarse = self._level_distances(log_coarse, self.coarse_scales)
        joined_offsets = star_dcn_offset(coarse, self.offset_mode, self.gradient_mul)
        offsets = split_levels(joined_offsets, log_coarse)
        cls_feats = run_tower(self.cls_convs, x)
        if self.guided_branches == "both":
            guided = _guided(self.cls_guided, cls_feats, offsets)
            shortcut = zip(guided, cls_feats)
            cls_feats = [g + f for g, f in shortcut] if self.cls_shortcut else guided
        logits = [self.conv_cls(feat) for feat in cls_feats]
        refined = self._refined_distances(x, offsets, logits, coarse) if self.refines else coarse
        strides = self.prior_generator.joined(x)[1]
        return (
            logits,
            split_levels(refined * strides, x),
            iou_preds,
            split_levels(coarse * strides, x),
        )

    def _refined_distances(
        self, x: tuple[Tensor], offsets: list[Tensor], logits: list[Tensor], coarse: Tensor
    ) -> Tensor:
        """Final distances in strides of all levels joined, ``(N, 4, P)``."""
        feats, where = run_tower(self.reg_convs, x), None
        if self._refines_sparsely():
            where = detectable_levels(logits, self.test_cfg)
            guided = [
                F.relu(guided_around(level, self.reg_guided, feat, offset))
                for level, feat, offset in zip(where, feats, offsets)
            ]
        else:
            guided = _guided(self.reg_guided, feats, offsets)
        outputs = [self.conv_reg(feat) for feat in guided]
        refined = self._refine(scaled_levels(outputs, self.scales), coarse)
        return refined if where is None else torch.where(join_levels(where), refined, coarse)

    def _refines_sparsely(self) -> bool:
        inference = not self.training and not torch.is_grad_enabled()
        return self.sparse_refinement and inference and not exporting()

    def _pre_outputs(self, feats: list[Tensor]) -> tuple[list[Tensor], list[Any]]:
        """Log of the coarse distances in strides, and the IoU logits if there are any."""
        if not self.with_iou_branch:
            return [self.conv_coarse(feat) for feat in feats], [None] * len(feats)
        # As one convolution: five output channels take no longer than one.
        layers: tuple[Any, ...] = (self.conv_coarse, self.conv_iou)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        outs = [F.conv2d(feat, weight, bias, padding=1).split([4, 1], dim=1) for feat in feats]
        return [coarse for coarse, _ in outs], [iou for _, iou in outs]

    def _refine(self, output: Tensor, coarse: Tensor) -> Tensor:
        """Final distances in strides from the scaled regression output (eq. 8)."""
        coarse = coarse.detach() if self.refine_detach else coarse
        if self.refine_mode == "add":
            return coarse + output.float()
        return exp_distance(output) * coarse

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        iou_preds: list[Tensor],
        coarse_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch; see :meth:`forward` for the outputs."""
        assign_preds = coarse_preds if self.assign_boxes == "coarse" else bbox_preds
        targets = self.get_targets(cls_scores, bbox_preds, batch_gt_instances, assign_preds)
        coarse_bboxes = targets.assign_bboxes
        if self.assign_boxes != "coarse":
            coarse_bboxes = self.decode(targets.points, coarse_preds).flatten(0, 1)
        box_losses = targets.box_losses(self.loss_bbox, targets.bboxes)
        losses = dict(
            loss_cls=targets.classification_loss(self.loss_cls, self.num_classes),
            loss_bbox=targets.mean(box_losses),
        )
        if self.refines:
            coarse_losses = targets.box_losses(self.loss_bbox_coarse, coarse_bboxes)
            losses["loss_bbox_coarse"] = targets.mean(coarse_losses)
        if self.with_iou_branch:
            bboxes = targets.bboxes if self.iou_target == "refined" else coarse_bboxes
            ious = targets.ious(bboxes, self.iou_mode).clamp(0, 1)
            losses["loss_iou"] = targets.iou_branch_loss(self.loss_iou, iou_preds, ious)
        return losses

    def predict_by_feat(  # type: ignore[override]  # mmdet passes a head its own outputs
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        iou_preds: list[Tensor],
        coarse_preds: list[Tensor],
        **kwargs: Any,
    ) -> InstanceList:
        """Detections from the refined boxes, scored by ``score_mode``."""
        return super().predict_by_feat(cls_scores, bbox_preds, iou_preds, **kwargs)


def _guided(layer: AutoDeformConv2d, feats: list[Tensor], offsets: list[Tensor]) -> list[Tensor]:
    """``relu(layer(feat, offset))`` per level."""
    if takes_all_levels(layer, feats[0]):
        return deform_levels(feats, offsets, layer.weight, activation=F.relu)
    return [F.relu(layer(feat, offset)) for feat, offset in zip(feats, offsets)]
