"""mmdet's RetinaNet, ATSS, FCOS and GFL heads made aware of boxes and predictions (paper C).

The mixins call mmdet's heads and stand between two of their steps: they hand the positives' boxes
to :class:`~misalign_det.models.losses.DCLoss`, and class probabilities to an assigner that reads
them.
"""

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.registry import MODELS
from torch import Tensor

from ..losses import DCLoss


class DCMixin:
    """Before a dense head of mmdet's: eq. 2 over all levels, whatever its levels' loop does."""

    def __init__(self, *args, loss_cls: dict, **kwargs) -> None:
        if loss_cls["type"] == "DCLoss":  # mmdet's heads look for use_sigmoid at the top
            loss_cls = dict(loss_cls, use_sigmoid=loss_cls["loss"].get("use_sigmoid", False))
        super().__init__(*args, loss_cls=loss_cls, **kwargs)
        self._dc_batch = None

    def loss_by_feat(self, cls_scores, bbox_preds, *args, **kwargs) -> dict:
        """mmdet's losses, with the dynamic coefficient if ``loss_cls`` is a DCLoss."""
        if not isinstance(self.loss_cls, DCLoss):
            return super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
        with self.loss_cls.batch(self.num_classes) as self._dc_batch:
            self._dc_bbox_preds = bbox_preds
            losses = super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
            single = isinstance(losses["loss_cls"], Tensor)
            losses["loss_cls"] = self._dc_batch.losses()
            if single:
                (losses["loss_cls"],) = losses["loss_cls"]
        self._dc_batch = self._dc_bbox_preds = None
        return losses

    def get_targets(self, priors, *args, **kwargs) -> tuple:
        """mmdet's targets; the positives' boxes are noted on the way."""
        targets = super().get_targets(priors, *args, **kwargs)
        if self._dc_batch is not None:
            with torch.no_grad():
                self._dc_batch.set_boxes(*self.positive_boxes(priors, targets))
        return targets

    def positive_boxes(self, priors, targets: tuple) -> tuple[list[Tensor], list[Tensor]]:
        """Predicted and GT boxes of the positives, xyxy in pixels, ``(E, 4)`` a level."""
        raise NotImplementedError


class PredictionMixin:
    """Before an anchor head: gives its assigner ``pred_instances.scores``, if it asks for them."""

    def loss_by_feat(self, cls_scores, *args, **kwargs) -> dict:
        """mmdet's losses; the class probabilities are kept for the assigner meanwhile."""
        if not getattr(self.assigner, "needs_scores", False):
            return super().loss_by_feat(cls_scores, *args, **kwargs)
        probabilities = torch.cat(
            [
                level.detach().permute(0, 2, 3, 1).reshape(len(level), -1, self.cls_out_channels)
                for level in cls_scores
            ],
            dim=1,
        ).float()
        if self.use_sigmoid_cls:
            probabilities = probabilities.sigmoid()
        else:
            probabilities = probabilities.softmax(dim=-1)[..., : self.num_classes]
        self._probabilities = list(probabilities)  # the images are taken one by one, in order
        try:
            return super().loss_by_feat(cls_scores, *args, **kwargs)
        finally:
            self.assigner.scores = None

    def _get_targets_single(self, flat_anchors, valid_flags, *args, **kwargs) -> tuple:
        if getattr(self.assigner, "needs_scores", False):
            img_meta = kwargs.get("img_meta") or next(a for a in args if isinstance(a, dict))
            inside = anchor_inside_flags(
                flat_anchors,
                valid_flags,
                img_meta["img_shape"][:2],
                self.train_cfg["allowed_border"],
            )
            self.assigner.scores = self._probabilities.pop(0)[inside]
        return super()._get_targets_single(flat_anchors, valid_flags, *args, **kwargs)


def _rows(levels: list[Tensor], channels: int) -> list[Tensor]:
    """``(N, A * D, h, w)`` a level -> ``(N * h * w * A, D)``, as mmdet flattens them."""
    return [level.permute(0, 2, 3, 1).reshape(-1, channels) for level in levels]


@MODELS.register_module()
class DCRetinaHead(DCMixin, PredictionMixin, RetinaHead):
    """mmdet's RetinaHead for :class:`~misalign_det.models.losses.DCLoss` and ``IACAssigner``.

    Args: those of mmdet's ``RetinaHead``.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCRetinaHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """

    def positive_boxes(self, priors, targets: tuple) -> tuple[list[Tensor], list[Tensor]]:
        labels, _, bbox_targets = targets[:3]
        pred, gt = [], []
        for i, rows in enumerate(_rows(self._dc_bbox_preds, 4)):
            positive = labels[i].flatten()
            positive = (positive >= 0) & (positive < self.num_classes)
            anchors = torch.stack([image[i] for image in priors]).view(-1, 4)[positive]
            target = bbox_targets[i].reshape(-1, 4)[positive]
            pred.append(self.bbox_coder.decode(anchors, rows[positive].float()))
            gt.append(target if self.reg_decoded_bbox else self.bbox_coder.decode(anchors, target))
        return pred, gt


class _CenterAnchorMixin(DCMixin):
    """ATSS and GFL: one anchor a location, targets that are boxes already."""

    def positive_boxes(self, priors, targets: tuple) -> tuple[list[Tensor], list[Tensor]]:
        anchors_list, labels, _, bbox_targets = targets[:4]
        pred, gt = [], []
        levels = _rows(self._dc_bbox_preds, self._dc_bbox_preds[0].shape[1])
        for i, rows in enumerate(levels):
            positive = labels[i].flatten()
            positive = (positive >= 0) & (positive < self.num_classes)
            anchors = anchors_list[i].reshape(-1, 4)[positive]
            stride = self.prior_generator.strides[i][0]
            pred.append(self._decode(anchors, rows[positive].float(), stride))
            gt.append(bbox_targets[i].reshape(-1, 4)[positive])
        return pred, gt

    def _decode(self, anchors: Tensor, rows: Tensor, stride: int) -> Tensor:
        return self.bbox_coder.decode(anchors, rows)


@MODELS.register_module()
class DCATSSHead(_CenterAnchorMixin, PredictionMixin, ATSSHead):
    """mmdet's ATSSHead for ``DCLoss`` and ``IACAssigner``.

    Args: those of mmdet's ``ATSSHead``.

    Example::

        _base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCATSSHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """


@MODELS.register_module()
class DCGFLHead(_CenterAnchorMixin, PredictionMixin, GFLHead):
    """mmdet's GFLHead for ``DCLoss`` around its quality focal loss.

    Args: those of mmdet's ``GFLHead``.

    Example::

        _base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCGFLHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0))))
    """

    def _decode(self, anchors: Tensor, rows: Tensor, stride: int) -> Tensor:
        return self.bbox_coder.decode(self.anchor_center(anchors), self.integral(rows) * stride)


@MODELS.register_module()
class DCFCOSHead(DCMixin, FCOSHead):
    """mmdet's FCOSHead for ``DCLoss``.

    Args: those of mmdet's ``FCOSHead``.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCFCOSHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """

    def positive_boxes(self, priors, targets: tuple) -> tuple[list[Tensor], list[Tensor]]:
        labels, bbox_targets = targets
        pred, gt = [], []
        for i, rows in enumerate(_rows(self._dc_bbox_preds, 4)):
            positive = (labels[i] >= 0) & (labels[i] < self.num_classes)
            # The location is the origin; with norm_on_bbox both are in strides while it trains.
            unit = self.strides[i] if self.norm_on_bbox else 1
            for boxes, distances in ((pred, rows), (gt, bbox_targets[i])):
                reach = distances[positive].float() * unit
                boxes.append(torch.cat([-reach[:, :2], reach[:, 2:]], dim=1))
        return pred, gt
