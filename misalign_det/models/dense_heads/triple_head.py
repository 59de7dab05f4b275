"""TripleHead: a pre-regression branch that guides classification and regression (paper B)."""

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, Scale
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import InstanceList, OptConfigType, OptInstanceList
from torch import Tensor, nn

from ...utils import new_tensor_without_sync
from ...utils.compiler import exporting
from ...utils.renamed import renamed_arguments
from ...utils.validation import check_choice
from ..layers import (
    AutoDeformConv2d,
    adapt_receptive_field,
    deform_levels,
    init_offsets,
    run_tower,
    star_dcn_offset,
    takes_all_levels,
)
from ..layers.star_offsets import OFFSET_MODES
from ..utils.multi_level import join_levels, scaled_levels, split_levels
from .float32_logits import at_least_float32
from .loss_aware_fcos_head import (
    BINARY_CROSS_ENTROPY,
    IOU_LOSS,
    SCORE_MODES,
    LossAwareFCOSHead,
    check_levels,
    exp_distance,
)

ROUNDING = 1e-5  # relative, of probabilities in float32


@MODELS.register_module()
@renamed_arguments(offset_gradient="gradient_mul")
class TripleHead(LossAwareFCOSHead):
    """Three branches: pre-regression (coarse box, confidence), classification, regression.

    `A Triple-head Network with Loss-aware Label Assignment for Object Detection`, section 3.3.
    Pre-regression has ``stacked_convs`` conv-GN-ReLU blocks; the other two have one less, then a
    3x3 deformable convolution without bias and norm whose taps sit on the coarse box (eq. 7). The
    final distances are ``exp(scale * output) x coarse`` (eq. 8). With the defaults on R50-FPN the
    model has 34,614,307 parameters less the backbone's BN affine ones, the paper's figure.

    Args:
        offset_mode: ``'box'`` or ``'grid_plus_box'``, the two readings of eq. 7; see
            :func:`~misalign_det.models.layers.star_dcn_offset`.
        gradient_mul: factor on the gradient into the coarse box through the offsets.
        refine_mode: ``'multiply'`` (eq. 8), ``'add'``: coarse + output in strides, or ``'none'``:
            the regression branch alone.
        refine_detach: whether eq. 8 stops the gradient into the coarse box.
        confidence_target: the confidence is trained towards the IoU of the ``'coarse'`` or the
            ``'refined'`` box with its GT, by ``loss_confidence``.
        score_mode: detection score, ``'product'`` of class probability and confidence, their
            ``'geometric_mean'``, or ``'class'`` probability alone. ``test_cfg.score_thr`` bounds
            the class probability in every mode.
        assign_boxes: which boxes drive the assigner, ``'coarse'`` or ``'refined'``. Under the
            refined ones the coarse box learns slowly, and with it everything that it guides: after
            three epochs on BCCD its loss was 0.67, under its own 0.47 (see configs/README.md).
        with_confidence: whether the confidence branch exists; without it, ``score_mode='class'``.
        rfa_position, rfa_modulated: paper A's adaptor in one conv-GN-ReLU block of each branch; see
            :class:`RFAHead`. Not in paper B.
        loss_bbox_coarse, loss_confidence: losses of the pre-regression branch; IoU loss and binary
            cross entropy, both of weight 1, by default.
        init_distance: distance in strides that the untrained coarse box reaches on every side.
        sparse_refinement: at inference, refine boxes only where ``test_cfg`` lets a detection
            through (``score_thr``, ``nms_pre``); elsewhere the coarse box stands. The detections
            are the same up to rounding. Read from the head's own ``test_cfg``; an export refines
            everywhere.
        others: those of mmdet's ``AnchorFreeHead``.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        bbox_head = dict(
            type='TripleHead', num_classes=80, in_channels=256, strides=[8, 16, 32, 64, 128])
        train_cfg = dict(assigner=dict(type='JLAAssigner', topk=35, theta=0.6))
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        offset_mode: str = "box",
        gradient_mul: float = 0.1,
        refine_mode: str = "multiply",
        refine_detach: bool = True,
        confidence_target: str = "coarse",
        score_mode: str = "product",
        assign_boxes: str = "coarse",
        with_confidence: bool = True,
        rfa_position: str | None = None,
        rfa_modulated: bool = False,
        sparse_refinement: bool = False,
        loss_bbox_coarse: OptConfigType = None,
        loss_confidence: OptConfigType = None,
        **kwargs,
    ) -> None:
        loss_confidence = loss_confidence or BINARY_CROSS_ENTROPY
        loss_bbox_coarse = loss_bbox_coarse or IOU_LOSS
        check_choice("offset_mode", offset_mode, OFFSET_MODES)
        check_choice("refine_mode", refine_mode, ("multiply", "add", "none"))
        check_choice("confidence_target", confidence_target, ("coarse", "refined"))
        check_choice("score_mode", score_mode, SCORE_MODES)
        check_choice("assign_boxes", assign_boxes, ("refined", "coarse"))
        if not with_confidence and score_mode != "class":
            raise ValueError(
                f"score_mode={score_mode!r} needs the confidence branch: with_confidence=False "
                "goes with score_mode='class'."
            )
        self.with_confidence = with_confidence
        self.rfa_position = rfa_position
        self.rfa_modulated = rfa_modulated
        self.offset_mode = offset_mode
        self.gradient_mul = gradient_mul
        self.refine_mode = refine_mode
        self.refine_detach = refine_detach
        self.confidence_target = confidence_target
        self.score_mode = score_mode
        self.assign_boxes = assign_boxes
        self.sparse_refinement = sparse_refinement
        super().__init__(num_classes, in_channels, **kwargs)
        if self.dcn_on_last_conv:
            raise ValueError("TripleHead's guided layers are deformable: drop dcn_on_last_conv.")
        self.loss_bbox_coarse = MODELS.build(loss_bbox_coarse)
        self.loss_confidence = MODELS.build(loss_confidence)

    def _init_layers(self) -> None:
        self.pre_convs = self._conv_blocks(self.stacked_convs)
        self.conv_coarse = nn.Conv2d(self.feat_channels, 4, 3, padding=1)
        if self.with_confidence:
            self.conv_confidence = nn.Conv2d(self.feat_channels, 1, 3, padding=1)
        self.cls_convs = self._conv_blocks(self.stacked_convs - 1)
        self.reg_convs = self._conv_blocks(self.stacked_convs - 1)
        width = self.in_channels if self.stacked_convs == 1 else self.feat_channels
        self.cls_guided = AutoDeformConv2d(width, self.feat_channels)
        self.reg_guided = AutoDeformConv2d(width, self.feat_channels)
        self._init_predictor()
        self.scales = nn.ModuleList(Scale(1.0) for _ in self.strides)
        self.coarse_scales = nn.ModuleList(Scale(1.0) for _ in self.strides)
        if self.rfa_position is not None:
            for tower in (self.pre_convs, self.cls_convs, self.reg_convs):
                adapt_receptive_field(tower, self.rfa_position, self.rfa_modulated)

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

    def init_weights(self) -> None:
        super().init_weights()
        self._set_init_distance(self.conv_coarse)
        if self.refine_mode != "none":
            # An untrained refinement keeps the coarse box: noise on it would decide which
            # locations the assigner takes first.
            nn.init.zeros_(self.conv_reg.weight)
            nn.init.zeros_(self.conv_reg.bias)
        init_offsets(self)

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Outputs a level.

        Returns:
            Class logits ``(N, C, H, W)``, refined distances in pixels ``(N, 4, H, W)``, confidence
            logits ``(N, 1, H, W)`` and coarse distances in pixels ``(N, 4, H, W)``.
        """
        check_levels(self, x)
        log_coarse, confidences = self._pre_outputs(run_tower(self.pre_convs, x))
        coarse = exp_distance(scaled_levels(log_coarse, self.coarse_scales))
        offsets = star_dcn_offset(coarse, self.offset_mode, self.gradient_mul)
        offsets = split_levels(offsets, log_coarse)
        cls_feats, reg_feats = run_tower(self.cls_convs, x), run_tower(self.reg_convs, x)
        logits = [self.conv_cls(feat) for feat in _guided(self.cls_guided, cls_feats, offsets)]
        sparse = self._refines_sparsely()
        if sparse:
            where = [self._detectable(level) for level in logits]
            guided = map(F.relu, map(self._guided_around, where, reg_feats, offsets))
        else:
            guided = _guided(self.reg_guided, reg_feats, offsets)
        outputs = [self.conv_reg(feat) for feat in guided]
        refined = self._refine(scaled_levels(outputs, self.scales), coarse)
        if sparse:
            refined = torch.where(join_levels(where), refined, coarse)
        strides = self.prior_generator.joined(x)[1]
        return (
            logits,
            split_levels(refined * strides, x),
            confidences,
            split_levels(coarse * strides, x),
        )

    def _detectable(self, logits: Tensor) -> Tensor:
        return detectable(at_least_float32(logits).sigmoid(), self.test_cfg or {})

    def _refines_sparsely(self) -> bool:
        inference = not self.training and not torch.is_grad_enabled()
        return self.sparse_refinement and inference and not exporting()

    def _pre_outputs(self, feats: list[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Log of the coarse distances in strides, and the confidence logits if there are any."""
        if not self.with_confidence:
            return [self.conv_coarse(feat) for feat in feats], [None] * len(feats)
        # As one convolution: five output channels take no longer than one.
        weight = torch.cat([self.conv_coarse.weight, self.conv_confidence.weight])
        bias = torch.cat([self.conv_coarse.bias, self.conv_confidence.bias])
        outs = [F.conv2d(feat, weight, bias, padding=1).split([4, 1], dim=1) for feat in feats]
        return tuple(map(list, zip(*outs)))

    def _guided_around(self, where: Tensor, x: Tensor, offset: Tensor) -> Tensor:
        """The guided layer of regression as far as its output convolution sees it from there."""
        seen = seen_by_output(where)
        (locations,) = seen.flatten().nonzero(as_tuple=True)
        if len(locations) > seen.numel() / 2:  # all of them are cheaper then
            return self.reg_guided(x, offset)
        guided = x.new_zeros(seen.numel(), self.feat_channels)
        guided[locations] = self.reg_guided.at(x, offset, locations)
        return guided.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)

    def _refine(self, output: Tensor, coarse: Tensor) -> Tensor:
        """Final distances in strides from the scaled regression output (eq. 8)."""
        coarse = coarse.detach() if self.refine_detach else coarse
        if self.refine_mode == "multiply":
            return exp_distance(output) * coarse
        if self.refine_mode == "add":
            return coarse + output.float()
        return exp_distance(output)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        confidences: list[Tensor],
        coarse_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch; see :meth:`forward` for the shapes."""
        assign_preds = coarse_preds if self.assign_boxes == "coarse" else bbox_preds
        targets = self.get_targets(cls_scores, bbox_preds, batch_gt_instances, assign_preds)
        coarse_bboxes = targets.assign_bboxes
        if self.assign_boxes != "coarse":
            coarse_bboxes = self.decode(targets.points, coarse_preds).flatten(0, 1)
        losses = dict(
            loss_cls=self.classification_loss(targets),
            loss_bbox=self.box_loss(self.loss_bbox, targets, targets.bboxes),
            loss_bbox_coarse=self.box_loss(self.loss_bbox_coarse, targets, coarse_bboxes),
        )
        if self.with_confidence:
            boxes = targets.bboxes if self.confidence_target == "refined" else coarse_bboxes
            boxes = boxes[targets.prior_inds].detach()
            with new_tensor_without_sync(boxes):
                iou = bbox_overlaps(boxes, targets.gt_bboxes, is_aligned=True).clamp(0, 1)
            losses["loss_confidence"] = self.quality_loss(
                self.loss_confidence, targets, confidences, iou
            )
        return losses

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        confidences: list[Tensor],
        coarse_preds: list[Tensor],
        **kwargs,
    ) -> InstanceList:
        """Detections from the refined boxes; the score is that of ``score_mode``."""
        return self.predict_with_quality(cls_scores, bbox_preds, confidences, **kwargs)


def _guided(layer: AutoDeformConv2d, feats: list[Tensor], offsets: list[Tensor]) -> list[Tensor]:
    """``relu(layer(feat, offset))`` per level."""
    if takes_all_levels(layer, feats[0]):
        return deform_levels(feats, offsets, layer.weight, activation=F.relu)
    return [F.relu(layer(feat, offset)) for feat, offset in zip(feats, offsets)]


def detectable(probabilities: Tensor, test_cfg: dict) -> Tensor:
    """Locations of one level that mmdet can make a detection of.

    Those it keeps before NMS, the ``nms_pre`` best pairs of location and class above ``score_thr``,
    are among them.

    Args:
        probabilities: ``(N, C, H, W)``.
        test_cfg: ``score_thr`` and ``nms_pre``; absent, they exclude nothing.

    Returns:
        ``(N, 1, H, W)`` bool.
    """
    best = probabilities.amax(dim=1, keepdim=True)
    # What mmdet compares may differ by rounding: of a geometric mean it sees the root.
    where = best > (test_cfg.get("score_thr") or 0) * (1 - ROUNDING)
    rows, limit = best.flatten(1), test_cfg.get("nms_pre") or -1
    if 0 < limit < rows.shape[1]:
        least = rows.topk(limit, dim=1).values[:, -1, None, None, None]
        where &= best >= least * (1 - ROUNDING)
    return where


def seen_by_output(where: Tensor) -> Tensor:
    """Locations that a 3x3 convolution sees from others, ``(N, 1, H, W)`` bool both."""
    return F.max_pool2d(where.float(), 3, stride=1, padding=1) > 0
