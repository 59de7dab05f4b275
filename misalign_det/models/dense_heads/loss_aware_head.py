"""A point head that trains from weighted positive edges: FCOS's towers, any assigner of ours."""

import torch
from mmcv.cnn import Scale
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import InstanceList, OptInstanceList, reduce_mean
from torch import Tensor, nn

from ..task_modules.candidate_edges import BatchGroundTruth

# exp(8) strides is far beyond any image; without a bound one bad step overflows to inf.
MAX_LOG_DISTANCE = 8.0
SCORE_MODES = ("product", "geometric_mean", "class")


@MODELS.register_module()
class LossAwareFCOSHead(AnchorFreeHead):
    """FCOS's two towers without centerness, trained by an assigner that sees the predictions.

    The second row of table 5 in paper B, and the base of this package's point heads. A location
    may be a positive of several GTs, each with its own weight: the pair's classification and box
    loss are multiplied by it. Boxes are ``exp(scale * output)`` strides to the left, top, right
    and bottom.

    Args:
        prior_distance: distance in strides that an untrained head predicts on all four sides.
        train_cfg: ``assigner``, one of this package's; see there.
        others: those of mmdet's ``AnchorFreeHead``.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        bbox_head = dict(
            type='LossAwareFCOSHead', num_classes=80, in_channels=256,
            strides=[8, 16, 32, 64, 128])
        train_cfg = dict(assigner=dict(type='JLAAssigner'))
    """

    score_mode = "class"

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        prior_distance: float = 4.0,
        strides=(8, 16, 32, 64, 128),
        conv_bias=True,
        norm_cfg=None,
        **kwargs,
    ) -> None:
        if norm_cfg is None:
            norm_cfg = dict(type="GN", num_groups=32, requires_grad=True)
        if prior_distance <= 0:
            raise ValueError(f"prior_distance must be positive, not {prior_distance}.")
        self.prior_distance = prior_distance
        super().__init__(
            num_classes,
            in_channels,
            strides=strides,
            conv_bias=conv_bias,
            norm_cfg=norm_cfg,
            **kwargs,
        )
        if not self.use_sigmoid_cls:
            raise ValueError("loss_cls must use_sigmoid=True: paper B sums per-class sigmoids.")
        if self.train_cfg:
            self.assigner = TASK_UTILS.build(self.train_cfg["assigner"])

    def _init_layers(self) -> None:
        super()._init_layers()
        self.scales = nn.ModuleList(Scale(1.0) for _ in self.strides)

    def init_weights(self) -> None:
        super().init_weights()
        self._set_prior_distance(self.conv_reg)

    def _set_prior_distance(self, conv: nn.Conv2d) -> None:
        nn.init.constant_(conv.bias, float(torch.tensor(self.prior_distance).log()))

    def forward(self, x: tuple[Tensor]) -> tuple[list[Tensor], ...]:
        """Class logits ``(N, C, H, W)`` and box distances in pixels ``(N, 4, H, W)`` a level."""
        outs = [self.forward_single(*level) for level in zip(x, self.scales, self.strides)]
        return tuple(map(list, zip(*outs)))

    def forward_single(self, x: Tensor, scale: Scale, stride: int) -> tuple[Tensor, Tensor]:
        cls_score, log_distance, _, _ = self.towers(x)
        return cls_score, exp_distance(scale(log_distance)) * stride

    def towers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Both branches of one level: class logits, log distances in strides, their features."""
        return super().forward_single(x)

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
    ) -> "EdgeTargets":
        """Assign the batch and gather what the losses need.

        Args:
            cls_scores, bbox_preds: outputs a level.
            assign_preds: boxes that drive the assigner, if not ``bbox_preds``.
        """
        points, strides = self._points(cls_scores)
        logits = flatten_levels(cls_scores)
        bboxes = self.decode(points, bbox_preds)
        assign_boxes = bboxes if assign_preds is None else self.decode(points, assign_preds)
        gts = BatchGroundTruth.from_instances(batch_gt_instances)
        edges = self.assigner.assign_batch(
            points, strides, logits.detach(), assign_boxes.detach(), gts
        )
        return EdgeTargets(logits.flatten(0, 1), bboxes.flatten(0, 1), points, gts, edges)

    def decode(self, points: Tensor, bbox_preds: list[Tensor]) -> Tensor:
        """Distances in pixels a level -> xyxy boxes in pixels, ``(N, P, 4)`` float32."""
        distances = flatten_levels(bbox_preds).float()
        return self.bbox_coder.decode(points.expand(len(distances), -1, -1), distances)

    def classification_loss(self, targets: "EdgeTargets") -> Tensor:
        """Every location that is neither positive nor ignored as background, plus each edge.

        A location with several positive GTs contributes one weighted row for each.
        """
        background = targets.background.nonzero().squeeze(1)
        rows = torch.cat([background, targets.prior_inds])
        labels = torch.cat(
            [background.new_full((len(background),), self.num_classes), targets.labels]
        )
        weights = torch.cat([targets.weights.new_ones(len(background)), targets.weights])
        return self.loss_cls(targets.logits[rows], labels, weights, avg_factor=targets.avg_factor)

    def box_loss(
        self,
        loss: nn.Module,
        targets: "EdgeTargets",
        bboxes: Tensor,
        edge_weights: Tensor | None = None,
    ) -> Tensor:
        """A box loss of mmdet's, averaged over the positive edges.

        Args:
            bboxes: ``(N * P, 4)``.
            edge_weights: further weights of the edges, ``(E,)``; the loss is divided by the sum
                of all weights over the processes.
        """
        predicted = bboxes[targets.prior_inds]
        weights, avg_factor = targets.weights, targets.avg_factor
        if edge_weights is not None:
            weights = weights * edge_weights
            avg_factor = reduce_mean(weights.sum()).clamp(min=1e-6).item()
        if len(predicted) == 0:  # an empty sum keeps every parameter in the graph
            return predicted.sum()
        return loss(predicted, targets.gt_bboxes, weights, avg_factor=avg_factor)

    def quality_loss(
        self, loss: nn.Module, targets: "EdgeTargets", outputs: list[Tensor], quality: Tensor
    ) -> Tensor:
        """Loss of a one-channel output a level against the quality of each positive edge.

        Args:
            loss: binary cross entropy of mmdet's.
            outputs: logits ``(N, 1, H, W)`` a level.
            quality: target of each edge in [0, 1], ``(E,)``.
        """
        logits = flatten_levels(outputs).flatten()[targets.prior_inds]
        if len(logits) == 0:
            return logits.sum()
        return loss(logits, quality, targets.weights, avg_factor=targets.avg_factor)

    def predict_with_quality(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        qualities: list[Tensor],
        **kwargs,
    ) -> InstanceList:
        """Detections whose score combines class probability and quality by ``score_mode``."""
        factors = None if self.score_mode == "class" else qualities
        return super().predict_by_feat(cls_scores, bbox_preds, factors, **kwargs)

    def _bbox_post_process(self, results, *args, **kwargs):
        # mmdet multiplies score and factor; the product of the roots is the geometric mean.
        if self.score_mode == "geometric_mean" and "score_factors" in results:
            results.scores = results.scores.sqrt()
            results.score_factors = results.score_factors.sqrt()
        return super()._bbox_post_process(results, *args, **kwargs)

    def _points(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Location centres ``(P, 2)`` and strides ``(P,)`` in pixels, float32."""
        priors = torch.cat(
            self.prior_generator.grid_priors(
                [level.shape[-2:] for level in levels],
                dtype=torch.float32,
                device=levels[0].device,
                with_stride=True,
            )
        )
        return priors[:, :2], priors[:, 2]


class EdgeTargets:
    """Predictions of a batch beside the positives they are trained towards.

    Attributes:
        logits, bboxes: of all locations, ``(N * P, C)`` and xyxy ``(N * P, 4)``.
        points: location centres, ``(P, 2)``.
        prior_inds, weights, labels, gt_bboxes: of the positive edges, ``(E, ...)``.
        background: locations trained as background, ``(N * P,)`` bool.
        avg_factor: sum of the weights, averaged over processes, at least 1.
    """

    def __init__(self, logits, bboxes, points, gts, edges) -> None:
        self.logits, self.bboxes, self.points, self.edges = logits, bboxes, points, edges
        self.prior_inds, gt_inds, self.weights = edges.nonzero()
        self.labels, self.gt_bboxes = gts.labels[gt_inds], gts.bboxes[gt_inds]
        self.background = ~edges.ignored
        self.background[self.prior_inds] = False
        self.avg_factor = reduce_mean(self.weights.sum()).clamp(min=1).item()


def flatten_levels(levels: list[Tensor]) -> Tensor:
    """One ``(N, D, H, W)`` tensor a level -> ``(N, P, D)``, locations in order of level, row."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)


def exp_distance(log_distance: Tensor) -> Tensor:
    """Positive distances from a head's output, in float32 even under autocast."""
    return log_distance.float().clamp(max=MAX_LOG_DISTANCE).exp()
