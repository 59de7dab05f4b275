"""A point head that trains from weighted positive edges: FCOS's towers, any assigner of ours."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import Scale
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import InstanceList, OptConfigType, OptInstanceList, reduce_mean
from mmengine.config import ConfigDict
from torch import Tensor, nn

from ...utils import new_tensor_without_sync
from ...utils.renamed import renamed_arguments
from ..layers import run_tower
from ..task_modules.assigners.candidates import BatchGroundTruth
from ..utils.multi_level import (
    CachedPointGenerator,
    flatten_levels,
    join_levels,
    scaled_levels,
    split_levels,
)
from .float32_logits import at_least_float32
from .head_config_checks import ASSIGNERS, check_head_config

# exp(8) strides is far beyond any image; without a bound one bad step overflows to inf.
MAX_LOG_DISTANCE = 8.0
SCORE_MODES = ("product", "geometric_mean", "class")
# What stands for absent keys of test_cfg. Under -1, its own default for nms_pre, mmdet leaves out
# the last candidate of each level.
NO_LIMITS = dict(nms_pre=2**31 - 1, nms=None, max_per_img=None)
# mmdet's defaults with its scope: in another default scope a bare name may be another class.
FOCAL_LOSS = dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
IOU_LOSS = dict(type="mmdet.IoULoss", loss_weight=1.0)
BINARY_CROSS_ENTROPY = dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0)
DISTANCE_CODER = dict(type="mmdet.DistancePointBBoxCoder")


@MODELS.register_module()
@renamed_arguments(prior_distance="init_distance")
class LossAwareFCOSHead(AnchorFreeHead):
    """FCOS's two towers without centerness, trained by an assigner that sees the predictions.

    The second row of table 5 in paper B, and the base of this package's point heads. A location
    may be a positive of several GTs, each with its own weight: the pair's classification and box
    loss are multiplied by it. Boxes are ``exp(scale * output)`` strides to the left, top, right
    and bottom.

    Args:
        init_distance: distance in strides that an untrained head predicts on all four sides.
        strides: of each level in pixels.
        loss_cls: focal loss (0.25, 2) of weight 1 by default; another needs ``use_sigmoid=True``.
        loss_bbox: IoU loss of weight 1 by default.
        bbox_coder: mmdet's ``DistancePointBBoxCoder`` by default.
        train_cfg: ``assigner``, one of this package's; see there. Training needs it.
        test_cfg: as in mmdet; absent keys, and None, exclude nothing: without ``nms`` no box is
            suppressed, without ``score_thr``, ``nms_pre``, ``max_per_img`` none is left out.
        others: those of mmdet's ``AnchorFreeHead``.

    Raises:
        ValueError: names the keys of the config that the head does not read, as those of a head
            that it replaced, and the parts that do not fit it.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        bbox_head = dict(
            type='LossAwareFCOSHead', num_classes=80, in_channels=256,
            strides=[8, 16, 32, 64, 128])
        train_cfg = dict(assigner=dict(type='JLAAssigner'))
    """

    score_mode = "class"
    train_cfg_keys = ("assigner",)  # what the head reads of train_cfg

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        init_distance: float = 4.0,
        strides=(8, 16, 32, 64, 128),
        conv_bias=True,
        norm_cfg=None,
        loss_cls: OptConfigType = None,
        loss_bbox: OptConfigType = None,
        bbox_coder: OptConfigType = None,
        **kwargs,
    ) -> None:
        loss_cls, loss_bbox = loss_cls or FOCAL_LOSS, loss_bbox or IOU_LOSS
        bbox_coder = bbox_coder or DISTANCE_CODER
        parts = dict(loss_cls=loss_cls, loss_bbox=loss_bbox, bbox_coder=bbox_coder)
        check_head_config(type(self), {**kwargs, **parts})
        if norm_cfg is None:
            norm_cfg = dict(type="GN", num_groups=32, requires_grad=True)
        if init_distance <= 0:
            raise ValueError(f"init_distance must be positive, not {init_distance}.")
        if not all(isinstance(stride, int | float) and stride > 0 for stride in strides):
            raise ValueError(f"strides are one positive number a level, not {strides}.")
        self.init_distance = init_distance
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
                "joint loss sums one sigmoid a class."
            )
        self.prior_generator = CachedPointGenerator(
            self.prior_generator.strides, self.prior_generator.offset
        )
        if self.train_cfg and self.train_cfg.get("assigner"):
            self.assigner = TASK_UTILS.build(self.train_cfg["assigner"])

    def _init_layers(self) -> None:
        super()._init_layers()
        self.scales = nn.ModuleList(Scale(1.0) for _ in self.strides)

    def init_weights(self) -> None:
        super().init_weights()
        self._set_init_distance(self.conv_reg)

    def _set_init_distance(self, conv: nn.Conv2d) -> None:
        nn.init.constant_(conv.bias, float(torch.tensor(self.init_distance).log()))

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits ``(N, C, H, W)`` and box distances in pixels ``(N, 4, H, W)`` per level."""
        check_levels(self, x)
        cls_scores, log_distances, _, _ = self.towers(x)
        return cls_scores, self._pixel_distances(log_distances)

    def _pixel_distances(self, log_distances: Sequence[Tensor]) -> list[Tensor]:
        """Of the regression outputs per level; in pixels, as views per level."""
        distances = exp_distance(scaled_levels(log_distances, self.scales))
        _, strides = self.prior_generator.joined(log_distances)
        return split_levels(distances * strides, log_distances)

    def towers(self, x: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Both branches: class logits, log distances in strides, their features, all per level."""
        cls_feats, reg_feats = run_tower(self.cls_convs, x), run_tower(self.reg_convs, x)
        cls_scores = [self.conv_cls(feat) for feat in cls_feats]
        return cls_scores, [self.conv_reg(feat) for feat in reg_feats], cls_feats, reg_feats

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch; see :meth:`forward` for the shapes."""
        targets = self.get_targets(cls_scores, bbox_preds, batch_gt_instances)
        return dict(
            loss_cls=self.classification_loss(targets),
            loss_bbox=self.box_loss(self.loss_bbox, targets, targets.bboxes),
        )

    def get_targets(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: InstanceList,
        assign_preds: list[Tensor] | None = None,
    ) -> "DenseTargets":
        """Assign the batch and gather what the losses need.

        Args:
            cls_scores, bbox_preds: outputs a level.
            assign_preds: boxes that drive the assigner, if not ``bbox_preds``.

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
        assign_boxes = bboxes if assign_preds is None else self.decode(points, assign_preds)
        gts = BatchGroundTruth.from_instances(batch_gt_instances)
        edges = self.assigner.assign_batch(
            points, strides, logits.detach(), assign_boxes.detach(), gts
        )
        parts = (part.flatten(0, 1) for part in (logits, bboxes, assign_boxes))
        return DenseTargets(*parts, points, gts, edges)

    def decode(self, points: Tensor, bbox_preds: list[Tensor]) -> Tensor:
        """Distances in pixels a level -> xyxy boxes in pixels, ``(N, P, 4)`` float32."""
        distances = flatten_levels(bbox_preds).float()
        return self.bbox_coder.decode(points.expand(distances.shape[0], -1, -1), distances)

    def classification_loss(self, targets: "DenseTargets") -> Tensor:
        """Every location that is neither positive nor ignored as background, plus each edge.

        A location with several positive GTs contributes one weighted row for each.
        """
        # All locations are rows, so that nobody asks the device how many are background. One that
        # is not has weight 0 and the logit 0: its own might be infinite.
        background = targets.background
        negatives = torch.where(background[:, None], targets.logits, 0)
        logits = torch.cat([negatives, targets.logits[targets.prior_inds]])
        labels = torch.cat(
            [targets.labels.new_full((len(background),), self.num_classes), targets.labels]
        )
        weights = torch.cat([background.to(targets.weights), targets.weights])
        logits = at_least_float32(logits)  # Float32LogitsMixin says why
        return self.loss_cls(logits, labels, weights, avg_factor=targets.avg_factor)

    def box_loss(
        self,
        loss: nn.Module,
        targets: "DenseTargets",
        bboxes: Tensor,
        pos_weights: Tensor | None = None,
    ) -> Tensor:
        """A box loss of mmdet's, averaged over the positive edges.

        Args:
            bboxes: ``(N * P, 4)``.
            pos_weights: further weights of the edges, ``(E,)``.
        """
        losses = self.box_losses(loss, targets, bboxes)
        return self.mean_over_positives(losses, targets, pos_weights)

    def box_losses(self, loss: nn.Module, targets: "DenseTargets", bboxes: Tensor) -> Tensor:
        """A box loss of mmdet's of each positive edge, ``(E,)``; see :meth:`box_loss`."""
        predicted = bboxes[targets.prior_inds]
        if len(predicted) == 0:  # an empty sum keeps every parameter in the graph
            return predicted.sum(dim=1)
        # Given the weights, mmdet's IoU losses would ask the device whether any is positive.
        with new_tensor_without_sync(predicted):
            return loss(predicted, targets.gt_bboxes, reduction_override="none")

    def mean_over_positives(
        self, losses: Tensor, targets: "DenseTargets", pos_weights: Tensor | None = None
    ) -> Tensor:
        """Mean of the losses of the positive edges by their weights, over all processes.

        Args:
            losses: ``(E,)``.
            pos_weights: further weights, ``(E,)``.
        """
        weights, avg_factor = targets.weights, targets.avg_factor
        if pos_weights is not None:
            weights = weights * pos_weights
            avg_factor = reduce_mean(weights.sum()).clamp(min=1e-6)
        return weight_reduce_loss(losses, weights, "mean", avg_factor)

    def quality_loss(
        self, loss: nn.Module, targets: "DenseTargets", outputs: list[Tensor], quality: Tensor
    ) -> Tensor:
        """Loss of a one-channel output a level against the quality of each positive edge.

        Args:
            loss: binary cross entropy of mmdet's.
            outputs: logits ``(N, 1, H, W)`` a level.
            quality: target of each edge in [0, 1], ``(E,)``.
        """
        logits = at_least_float32(flatten_levels(outputs).flatten()[targets.prior_inds])
        if len(logits) == 0:
            return logits.sum()
        return loss(logits, quality, targets.weights, avg_factor=targets.avg_factor)

    def predict_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], **kwargs
    ) -> InstanceList:
        """Detections, as mmdet's of that name; the score is the class probability."""
        return self.predict_with_quality(cls_scores, bbox_preds, None, **kwargs)

    def predict_with_quality(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        qualities: list[Tensor] | None,
        cfg: ConfigDict | None = None,
        **kwargs,
    ) -> InstanceList:
        """Detections whose score combines class probability and quality by ``score_mode``.

        ``score_thr`` and ``nms_pre`` of the config select by the class probability, before the
        quality, in every mode.
        """
        cfg = (self.test_cfg or {}) if cfg is None else cfg
        cfg = ConfigDict(NO_LIMITS, **{k: v for k, v in cfg.items() if v is not None})
        # mmdet places the priors in this dtype.
        cls_scores = [at_least_float32(level) for level in cls_scores]
        factors = None
        if self.score_mode != "class":
            factors = [at_least_float32(level) for level in qualities]
        if self.score_mode == "geometric_mean":
            # mmdet, and what exports it, multiplies the sigmoids of both and compares the first
            # with score_thr: the product of the roots is the geometric mean.
            cls_scores, factors = map(_logits_of_roots, (cls_scores, factors))
            cfg.score_thr = max(cfg.get("score_thr", 0), 0) ** 0.5
        return super().predict_by_feat(cls_scores, bbox_preds, factors, cfg=cfg, **kwargs)


class DenseTargets:
    """Predictions of a batch beside the positives they are trained towards.

    Attributes:
        logits, bboxes: of all locations, ``(N * P, C)`` and xyxy ``(N * P, 4)``.
        assign_bboxes: the boxes that drove the assigner, xyxy, ``(N * P, 4)``.
        points: location centres, ``(P, 2)``.
        prior_inds, weights, labels, gt_bboxes: of the positive edges, ``(E, ...)``.
        background: locations trained as background, ``(N * P,)`` bool.
        avg_factor: sum of the weights, averaged over processes, at least 1; a tensor, ``()``.
    """

    def __init__(self, logits, bboxes, assign_bboxes, points, gts, edges) -> None:
        self.logits, self.bboxes, self.assign_bboxes = logits, bboxes, assign_bboxes
        self.points, self.edges = points, edges
        self.prior_inds, gt_inds, self.weights = edges.nonzero()
        self.labels, self.gt_bboxes = gts.labels[gt_inds], gts.bboxes[gt_inds]
        self.background = ~edges.ignored
        self.background[self.prior_inds] = False
        self.avg_factor = reduce_mean(self.weights.sum()).clamp(min=1)


def exp_distance(log_distance: Tensor) -> Tensor:
    """Positive distances from a head's output, in float32 even under autocast."""
    return log_distance.float().clamp(max=MAX_LOG_DISTANCE).exp()


def check_levels(head: nn.Module, feats: tuple[Tensor]) -> None:
    """Raise a ValueError where a head's strides are not one for each level that it is given."""
    if len(feats) != len(head.strides):
        raise ValueError(
            f"{type(head).__name__} has strides {list(head.strides)} and is given {len(feats)} "
            "levels. Set one stride for each level of the neck (num_outs)."
        )


def _logits_of_roots(levels: list[Tensor]) -> list[Tensor]:
    """``x`` -> ``logit(sqrt(sigmoid(x)))``, without a difference of nearly equal numbers."""
    x = join_levels(levels)
    # With s the root: log(s / (1 - s)) = log(s) + log(1 + s) - log(1 - s * s).
    out = F.logsigmoid(x) / 2 + x.sigmoid().sqrt().log1p() - F.logsigmoid(-x)
    return split_levels(out, levels)
