"""A point head that trains on weighted positive pairs, with any assigner of this package."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmcv.cnn import Scale
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import InstanceList, OptConfigType, OptInstanceList
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ...utils.old_names import renamed_arguments
from ...utils.validation import check_choice
from ..layers import run_tower
from ..task_modules.assigners.candidates import BatchGroundTruth
from ..utils.multi_level import (
    CachedPointGenerator,
    flatten_levels,
    per_location,
    scaled_levels,
    split_levels,
)
from ..utils.pretrained import load_pretrained
from .box_voting_head import BoxVotingMixin
from .dense_targets import DenseTargets
from .distances import distance_per_level, exp_distance
from .head_config_checks import (
    ASSIGNERS,
    check_head_config,
    check_levels,
    without_delete_keys,
)
from .iou_branch import IoUBranchMixin, check_iou_loss, check_score_mode

# What stands for keys of test_cfg that are absent or None, or negative counts. Under -1, its own
# default for nms_pre, mmdet leaves out the last candidate of each level.
NO_LIMITS = dict(nms_pre=2**31 - 1, nms=None, max_per_img=None)
COUNTS = ("nms_pre", "max_per_img")
GROUP_NORM = dict(type="GN", num_groups=32, requires_grad=True)
# mmdet's defaults with its scope: in another default scope a bare name may be another class.
FOCAL_LOSS = dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
IOU_LOSS = dict(type="mmdet.IoULoss", loss_weight=1.0)
BINARY_CROSS_ENTROPY = dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0)
DISTANCE_CODER = dict(type="mmdet.DistancePointBBoxCoder")


@MODELS.register_module()
@renamed_arguments(prior_distance="init_distance")
class LossAwareFCOSHead(IoUBranchMixin, BoxVotingMixin, AnchorFreeHead):
    """FCOS's two towers without centerness, trained by an assigner that sees the predictions.

    Base of this package's point heads; with ``JLAAssigner`` the second row of table 5 in
    `A Triple-head Network with Loss-aware Label Assignment for Object Detection`. A location may be
    a positive of several GTs, each pair with its own weight, which multiplies the pair's
    classification, box and IoU loss. Boxes are ``exp(scale * output)`` strides to the left, top,
    right and bottom of the location. An optional branch predicts the IoU of each box with its GT.

    Args:
        num_classes: without background.
        in_channels: of each level of the neck's output, ``(N, in_channels, H, W)``.
        with_iou_branch: add a branch of one 3x3 convolution that predicts the box's IoU. Without
            it ``iou_branch_on``, ``iou_mode`` and ``loss_iou`` are not read.
        iou_branch_on: tower whose features it reads, ``'regression'`` or ``'classification'``.
        iou_mode: what it is trained to predict, ``'iou'`` or ``'giou'``, clamped to [0, 1].
        loss_iou: loss of the IoU branch, binary cross entropy of weight 1 by default; another needs
            ``use_sigmoid=True`` and takes one logit and one IoU per box.
        score_mode: detection score, the ``'class'`` probability alone, its ``'product'`` with the
            predicted IoU or their ``'geometric_mean'``. ``test_cfg.score_thr`` and ``nms_pre``
            select by the class probability in every mode.
        score_alpha: with ``'geometric_mean'``, the score is ``p^alpha * IoU^(1 - alpha)`` (Wu, Li
            and Wang, "IoU-aware Single-stage Object Detector for Accurate Localization", 2020).
        centerness_weight: weight the box loss of each positive pair by FCOS's centerness.
        init_distance: distance in strides that an untrained head predicts on all four sides. The
            assigner's first positives are the locations whose untrained boxes fit, so this decides
            which level learns objects of which size. A sequence has one per level; their ratios are
            factors on the levels' outputs, which a checkpoint does not hold: test and fine-tune
            with those of the training.
        strides: of each level in pixels.
        conv_bias: whether the towers' convolutions have a bias.
        norm_cfg: group norm of 32 groups by default; None for no norm layers.
        loss_cls: focal loss (0.25, 2) of weight 1 by default; another needs ``use_sigmoid=True``.
            mmdet's ``QualityFocalLoss`` trains the class scores towards the IoU of the box.
        loss_bbox: IoU loss of weight 1 by default.
        bbox_coder: mmdet's ``DistancePointBBoxCoder`` by default.
        **kwargs: passed to mmdet's ``AnchorFreeHead``. Of ``train_cfg`` the head reads
            ``assigner``, one of this package's; training needs it. Absent keys of ``test_cfg``,
            None and negative counts exclude nothing: without ``nms`` no box is suppressed. For
            ``box_voting`` see :class:`~.box_voting_head.BoxVotingMixin`.

    Raises:
        ValueError: names the keys of the config that the head does not read, such as those of a
            head that it replaced, and the parts that do not fit it.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(
                _delete_=True, type='LossAwareFCOSHead', num_classes=80, in_channels=256,
                strides=[8, 16, 32, 64, 128], with_iou_branch=True, score_mode='geometric_mean'),
            train_cfg=dict(assigner=dict(type='JLAAssigner')))
    """

    train_cfg_keys = ("assigner",)  # what the head reads of train_cfg
    prior_generator: CachedPointGenerator
    init_ratios: Tensor | None

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        with_iou_branch: bool = False,
        iou_branch_on: str = "regression",
        iou_mode: str = "iou",
        loss_iou: OptConfigType = None,
        score_mode: str = "class",
        score_alpha: float = 0.5,
        centerness_weight: bool = False,
        init_distance: float | Sequence[float] = 4.0,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        conv_bias: bool | str = True,
        norm_cfg: OptConfigType = GROUP_NORM,
        loss_cls: OptConfigType = None,
        loss_bbox: OptConfigType = None,
        bbox_coder: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        kwargs = without_delete_keys(kwargs)
        norm_cfg, loss_iou = without_delete_keys(norm_cfg), without_delete_keys(loss_iou)
        parts = without_delete_keys(
            dict(
                loss_cls=loss_cls or FOCAL_LOSS,
                loss_bbox=loss_bbox or IOU_LOSS,
                bbox_coder=bbox_coder or DISTANCE_CODER,
            )
        )
        check_head_config(type(self), {**kwargs, **parts})
        check_choice("iou_branch_on", iou_branch_on, ("regression", "classification"))
        check_choice("iou_mode", iou_mode, ("iou", "giou"))
        check_score_mode(score_mode, score_alpha, with_iou_branch)
        if not all(isinstance(stride, int | float) and stride > 0 for stride in strides):
            raise ValueError(f"strides must be one positive number per level, not {strides}.")
        self.with_iou_branch = with_iou_branch
        self.iou_branch_on = iou_branch_on
        self.iou_mode = iou_mode
        self.score_mode = score_mode
        self.score_alpha = score_alpha
        self.centerness_weight = centerness_weight
        self.init_distance = init_distance
        distances = distance_per_level(init_distance, len(strides))
        super().__init__(
            num_classes,
            in_channels,
            strides=strides,
            conv_bias=conv_bias,
            norm_cfg=norm_cfg,
            **parts,
            **kwargs,
        )
        if not self.use_sigmoid_cls:
            raise ValueError(
                "loss_cls has to be a sigmoid loss: write use_sigmoid=True beside its type. The "
                "joint loss sums one sigmoid per class."
            )
        self.loss_iou = MODELS.build(loss_iou or BINARY_CROSS_ENTROPY)
        if with_iou_branch:
            check_iou_loss(self.loss_iou)
        # Factors on the distances of the levels, which share the bias of the last convolution.
        ratios = torch.tensor(distances) / distances[0]
        self.register_buffer("init_ratios", None if (ratios == 1).all() else ratios, False)
        self.prior_generator = CachedPointGenerator(
            self.prior_generator.strides, self.prior_generator.offset
        )
        if self.train_cfg and self.train_cfg.get("assigner"):
            self.assigner = TASK_UTILS.build(self.train_cfg["assigner"])

    def _init_layers(self) -> None:
        super()._init_layers()
        self.scales = nn.ModuleList(Scale(1.0) for _ in self.strides)
        self._init_iou_branch()

    def init_weights(self) -> None:
        super().init_weights()
        self._set_initial_outputs()
        load_pretrained(self)  # of init_cfg, over what was just set

    def _set_initial_outputs(self) -> None:
        """What an untrained head predicts, where it is not left to ``init_cfg``."""
        self._set_init_distance(self.conv_reg)

    def _set_init_distance(self, conv: nn.Conv2d) -> None:
        assert conv.bias is not None
        first, *_ = distance_per_level(self.init_distance, len(self.strides))
        nn.init.constant_(conv.bias, math.log(first))

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Outputs per level.

        Args:
            x: features ``(N, D, H, W)`` per level.

        Returns:
            Class logits ``(N, C, H, W)``, distances to the box's left, top, right and bottom in
            pixels ``(N, 4, H, W)`` and, if there is an IoU branch, its logits ``(N, 1, H, W)``.
        """
        check_levels(self, x)
        cls_scores, log_distances, cls_feats, reg_feats = self.towers(x)
        outs = cls_scores, self._pixel_distances(log_distances)
        if not self.with_iou_branch:
            return outs
        feats = reg_feats if self.iou_branch_on == "regression" else cls_feats
        return *outs, [self.conv_iou(feat) for feat in feats]

    def _pixel_distances(self, log_distances: Sequence[Tensor]) -> list[Tensor]:
        """Regression outputs per level -> distances in pixels, as views per level."""
        distances = self._level_distances(log_distances, self.scales)
        _, strides = self.prior_generator.joined(log_distances)
        return split_levels(distances * strides, log_distances)

    def _level_distances(self, log_distances: Sequence[Tensor], scales: Iterable[Scale]) -> Tensor:
        """``ratio * exp(scale * output)`` per level -> distances in strides, ``(N, 4, P)``."""
        distances = exp_distance(scaled_levels(log_distances, scales))
        if self.init_ratios is None:
            return distances
        return distances * per_location(self.init_ratios, log_distances)

    def towers(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits, log distances in strides, and the features of both, all per level."""
        cls_feats, reg_feats = run_tower(self.cls_convs, x), run_tower(self.reg_convs, x)
        cls_scores = [self.conv_cls(feat) for feat in cls_feats]
        return cls_scores, [self.conv_reg(feat) for feat in reg_feats], cls_feats, reg_feats

    def loss_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            cls_scores, bbox_preds: outputs per level; see :meth:`forward`.
            *args, **kwargs: the IoU logits, ``iou_preds``, if there is an IoU branch; then mmdet's
                ``batch_gt_instances``, ``batch_img_metas`` and ``batch_gt_instances_ignore``.
        """
        without: tuple = () if self.with_iou_branch else ([],)
        return self._losses(cls_scores, bbox_preds, *without, *args, **kwargs)

    def _losses(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        iou_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        targets = self.get_targets(cls_scores, bbox_preds, batch_gt_instances)
        box_losses = targets.box_losses(self.loss_bbox, targets.bboxes)
        centerness = targets.centerness() if self.centerness_weight else None
        losses = dict(
            loss_cls=targets.classification_loss(self.loss_cls, self.num_classes),
            loss_bbox=targets.mean(box_losses, centerness),
        )
        if self.with_iou_branch:
            ious = self.iou_targets(targets, box_losses)
            losses["loss_iou"] = targets.iou_branch_loss(self.loss_iou, iou_preds, ious)
        return losses

    def get_targets(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        assign_preds: list[Tensor] | None = None,
    ) -> DenseTargets:
        """Assign the batch and gather what the losses need.

        Args:
            cls_scores, bbox_preds: outputs per level; see :meth:`forward`.
            batch_gt_instances: ``bboxes`` and ``labels`` of each image.
            assign_preds: distances of the boxes that drive the assigner, if not ``bbox_preds``.

        Raises:
            ValueError: the head was built without an assigner.
        """
        if not hasattr(self, "assigner"):
            raise ValueError(
                f"{type(self).__name__} has no assigner and cannot train. Give its detector "
                f"train_cfg=dict(assigner=dict(type=...)); {ASSIGNERS} fits."
            )
        points, strides = self.prior_generator.joined(cls_scores)
        logits = flatten_levels(cls_scores)
        bboxes = self.decode(points, bbox_preds)
        assign_bboxes = bboxes if assign_preds is None else self.decode(points, assign_preds)
        gts = BatchGroundTruth.from_instances(batch_gt_instances)
        assign_result = self.assigner.assign_batch(
            points, strides, logits.detach(), assign_bboxes.detach(), gts
        )
        logits, bboxes, assign_bboxes = (
            part.flatten(0, 1) for part in (logits, bboxes, assign_bboxes)
        )
        return DenseTargets(logits, bboxes, assign_bboxes, points, gts, assign_result)

    def decode(self, points: Tensor, bbox_preds: list[Tensor]) -> Tensor:
        """Distances in pixels per level -> xyxy boxes in pixels, ``(N, P, 4)`` float32."""
        distances = flatten_levels(bbox_preds).float()
        return self.bbox_coder.decode(points.expand(distances.shape[0], -1, -1), distances)

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        iou_preds: list[Tensor] | None = None,
        *,
        cfg: ConfigDict | None = None,
        **kwargs: Any,
    ) -> InstanceList:
        """Detections, scored by ``score_mode``.

        Args:
            cls_scores, bbox_preds, iou_preds: outputs per level; see :meth:`forward`.
            cfg: in place of ``test_cfg``.
            **kwargs: passed to mmdet's method of this name.
        """
        cfg = (self.test_cfg or {}) if cfg is None else cfg
        limits = {k: v for k, v in cfg.items() if v is not None and not (k in COUNTS and v < 0)}
        cfg = ConfigDict(NO_LIMITS, **limits)
        cls_scores, factors = self._score_factors(cls_scores, iou_preds, cfg)
        return super().predict_by_feat(cls_scores, bbox_preds, factors, cfg=cfg, **kwargs)
