"""mmdet's RetinaNet, ATSS, FCOS and GFL heads with DCLoss, and with IAC's assigners.

The mixins call mmdet's methods and change what passes between them, for what mmdet has no argument:

- The losses. mmdet hands the value of ``loss_cls`` on as it is. ``DCLoss`` returns its unreduced
  losses there, and ``loss_by_feat`` reduces them once all levels are known, as eq. 2 needs.
- The targets. mmdet's ``loss_by_feat`` finds them and does not return them. ``get_targets`` keeps
  them on the head, in ``_last_targets``, until ``loss_by_feat`` ends.
- The class logits. mmdet's ``assign`` gets the anchors alone. ``loss_by_feat`` adds each image's
  logits to its meta information, which mmdet passes to ``_get_targets_single``; from there they
  reach the assigner as its attribute ``scores``, which ``loss_by_feat`` resets.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmdet.models.losses import (
    GHMC,
    CrossEntropyLoss,
    FocalLoss,
    QualityFocalLoss,
    VarifocalLoss,
)
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from ..losses import DCLoss
from ..losses.dc_loss import UnreducedLoss, positive_rows, with_use_sigmoid
from .box_voting_head import BoxVotingMixin
from .float32_logits import Float32LogitsMixin
from .head_config_checks import refuse_assigner
from .score_aware_assign_mixin import ScoreAwareAssignMixin


class DCMixin(BoxVotingMixin, Float32LogitsMixin):
    """Base class ahead of one of mmdet's dense heads: ``loss_cls`` may be a DCLoss."""

    labels_index = 1  # of the labels in what mmdet's get_targets returns
    cls_targets = "class indices"  # what mmdet's head gives loss_cls
    fit_losses = "FocalLoss, GHMC or another loss of class indices"
    unfit_losses: tuple[type, ...] = (QualityFocalLoss, VarifocalLoss)
    _last_targets: tuple[Any, tuple] | None = None  # what get_targets took and returned

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "loss_cls" in kwargs:  # mmdet's heads look for use_sigmoid at the top
            kwargs["loss_cls"] = with_use_sigmoid(kwargs["loss_cls"])
        super().__init__(*args, **kwargs)
        if isinstance(self.loss_cls, DCLoss) and self.loss_cls.use_sigmoid != self.use_sigmoid_cls:
            raise ValueError(
                f"loss_cls is a DCLoss of use_sigmoid={self.loss_cls.use_sigmoid}, but its config "
                "does not say so: write use_sigmoid beside its type."
            )
        if isinstance(self.loss_cls, DCLoss) and isinstance(self.loss_cls.loss, self.unfit_losses):
            raise ValueError(
                f"{type(self).__name__} trains on {self.cls_targets}, which "
                f"{type(self.loss_cls.loss).__name__} does not take. Wrap {self.fit_losses}."
            )

    def loss_by_feat(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], *args: Any, **kwargs: Any
    ) -> dict:
        """mmdet's losses, with the dynamic coefficient if ``loss_cls`` is a DCLoss.

        Args:
            cls_scores: class logits per level.
            bbox_preds: box outputs per level.
            *args, **kwargs: the head's other outputs and ground truths, as they are.
        """
        if not isinstance(self.loss_cls, DCLoss):
            return super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
        try:
            with self.loss_cls.unreduced():
                losses = super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
            assert self._last_targets is not None
            priors, targets = self._last_targets
        finally:
            self._last_targets = None
        single = isinstance(losses["loss_cls"], UnreducedLoss)  # FCOS's, of all levels
        calls = [losses["loss_cls"]] if single else losses["loss_cls"]
        positive = positive_rows(calls, self.num_classes)
        coefficient = self._coefficient(bbox_preds, positive, priors, targets)
        reduced = self.loss_cls.reduce(calls, positive, coefficient)
        return {**losses, "loss_cls": reduced[0] if single else reduced}

    def get_targets(self, priors: Any, *args: Any, **kwargs: Any) -> tuple:
        """mmdet's targets; kept for ``loss_by_feat`` while it runs.

        Args:
            priors: anchors per image and level, or points per level.
            *args, **kwargs: as in mmdet's method of this name.
        """
        targets = super().get_targets(priors, *args, **kwargs)
        if getattr(self.loss_cls, "gives_unreduced", False):
            self._last_targets = priors, targets
        return targets

    @torch.no_grad()
    def _coefficient(
        self, bbox_preds: list[Tensor], positive: Tensor, priors: Any, targets: tuple
    ) -> Tensor:
        """Eq. 1 of each positive, ``(E,)``."""
        labels = targets[self.labels_index]
        with torch.autocast(bbox_preds[0].device.type, enabled=False):  # boxes in float32
            rows = torch.cat(
                [
                    level.permute(0, 2, 3, 1).reshape(label.numel(), -1)
                    for level, label in zip(bbox_preds, labels)
                ]
            )
            boxes = self.positive_boxes(rows[positive].float(), positive, priors, targets)
            return self.loss_cls.coefficient(*boxes)

    def positive_boxes(
        self, rows: Tensor, positive: Tensor, priors: Any, targets: tuple
    ) -> tuple[Tensor, Tensor]:
        """Predicted and GT boxes of the positives, xyxy in pixels, ``(E, 4)`` each.

        Args:
            rows: box outputs of the positives, ``(E, D)``.
            positive: their indices among the rows of all levels, ``(E,)``. Rows are counted level
                by level, within a level image by image.
            priors, targets: what mmdet's ``get_targets`` took and returned.
        """
        raise NotImplementedError


def join_images(levels: Sequence[Tensor]) -> Tensor:
    """``(N, n, ...)`` per level -> ``(N * n + ..., ...)``, level by level, image by image."""
    return torch.cat([image for level in levels for image in level])


def _of_level(values: Sequence[float], labels: Sequence[Tensor], positive: Tensor) -> Tensor:
    """The value of each positive's level, ``(E, 1)`` float32.

    Args:
        values: one per level.
        labels: as many as each level has rows.
        positive: see :meth:`DCMixin.positive_boxes`.
    """
    # Filled on the device: copying the host's numbers there would synchronise the two.
    rows = [
        label.new_full((label.numel(), 1), value, dtype=torch.float32)
        for value, label in zip(values, labels)
    ]
    return torch.cat(rows)[positive]


@MODELS.register_module()
class DCRetinaHead(DCMixin, ScoreAwareAssignMixin, RetinaHead):
    """mmdet's RetinaHead for :class:`~misalign_det.models.losses.DCLoss` and ``IACAssigner``.

    Args:
        *args, **kwargs: passed to mmdet's ``RetinaHead``.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCRetinaHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """

    labels_index = 0

    def positive_boxes(
        self, rows: Tensor, positive: Tensor, priors: Any, targets: tuple
    ) -> tuple[Tensor, Tensor]:
        levels = zip(*priors)  # each the anchors of one level, image by image
        anchors = torch.cat([get_box_tensor(image) for level in levels for image in level])
        anchors, target = anchors[positive], join_images(targets[2])[positive]
        if not self.reg_decoded_bbox:
            target = get_box_tensor(self.bbox_coder.decode(anchors, target))
        return get_box_tensor(self.bbox_coder.decode(anchors, rows)), target


class _CenterAnchorMixin(DCMixin, ScoreAwareAssignMixin):
    """ATSS and GFL: one anchor per location, targets that are boxes already."""

    def positive_boxes(
        self, rows: Tensor, positive: Tensor, priors: Any, targets: tuple
    ) -> tuple[Tensor, Tensor]:
        anchors, target = (join_images(targets[index])[positive] for index in (0, 3))
        return self._decode(anchors, rows, targets[self.labels_index], positive), target

    def _decode(
        self, anchors: Tensor, rows: Tensor, labels: Sequence[Tensor], positive: Tensor
    ) -> Tensor:
        return self.bbox_coder.decode(anchors, rows)


@MODELS.register_module()
class DCATSSHead(_CenterAnchorMixin, ATSSHead):
    """mmdet's ATSSHead for ``DCLoss`` and ``IACATSSAssigner``.

    Args:
        *args, **kwargs: passed to mmdet's ``ATSSHead``.

    Example::

        _base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCATSSHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """


@MODELS.register_module()
class DCGFLHead(_CenterAnchorMixin, GFLHead):
    """mmdet's GFLHead for ``DCLoss`` around its quality focal loss, and ``IACATSSAssigner``.

    Args:
        *args, **kwargs: passed to mmdet's ``GFLHead``.

    Example::

        _base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCGFLHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0))))
    """

    cls_targets = "class indices with the IoU of each box"
    fit_losses = "QualityFocalLoss"
    unfit_losses = (CrossEntropyLoss, FocalLoss, GHMC, VarifocalLoss)

    def _decode(
        self, anchors: Tensor, rows: Tensor, labels: Sequence[Tensor], positive: Tensor
    ) -> Tensor:
        strides = [stride[0] for stride in self.prior_generator.strides]
        distances = self.integral(rows) * _of_level(strides, labels, positive)
        return self.bbox_coder.decode(self.anchor_center(anchors), distances)


@MODELS.register_module()
class DCFCOSHead(DCMixin, FCOSHead):
    """mmdet's FCOSHead for ``DCLoss``.

    Args:
        *args, **kwargs: passed to mmdet's ``FCOSHead``.

    Raises:
        ValueError: ``train_cfg`` names an assigner of this package, which FCOS would not read.

    Example::

        _base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCFCOSHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """

    labels_index = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse_assigner(type(self), kwargs.get("train_cfg"))
        super().__init__(*args, **kwargs)

    def positive_boxes(
        self, rows: Tensor, positive: Tensor, priors: Any, targets: tuple
    ) -> tuple[Tensor, Tensor]:
        # The location is the origin; with norm_on_bbox both are in strides while it trains.
        labels, target = targets
        target = torch.cat(target)[positive].float()
        if self.norm_on_bbox:
            unit = _of_level(self.strides, labels, positive)
            rows, target = rows * unit, target * unit
        pred, gt = (torch.cat([-reach[:, :2], reach[:, 2:]], dim=1) for reach in (rows, target))
        return pred, gt
