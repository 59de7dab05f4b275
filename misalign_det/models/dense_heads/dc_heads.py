"""mmdet's RetinaNet, ATSS, FCOS and GFL heads made aware of boxes and predictions (paper C).

The mixins call mmdet's heads and stand between two of their steps: they hand the positives' boxes
to :class:`~misalign_det.models.losses.DCLoss`, and class probabilities to an assigner that reads
them.

Both go by attributes that hold for the time of one ``loss_by_feat``. mmdet's ``loss_by_feat`` finds
the targets, calls the loss level by level and returns reduced values, and its ``assign`` gets the
anchors alone: nothing else of the boxes, the unreduced losses or the predictions can be passed in
or out, short of copying the method. So ``DCLoss.batch`` is open while it runs: ``get_targets`` adds
the boxes, each call of the loss leaves its rows and gives mmdet a zero, and the true values, which
eq. 2 gives once all levels are known, take the zeros' place. The assigner gets the logits of one
image after another, in the order in which mmdet takes the images. An exception ends all of it.
"""

from collections.abc import Sequence
from functools import partial

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from ..losses import DCLoss
from ..losses.dc_loss import join_images, with_use_sigmoid
from .float32_logits import Float32LogitsMixin


class DCMixin(Float32LogitsMixin):
    """Before a dense head of mmdet's: eq. 2 over all levels, whatever its levels' loop does."""

    def __init__(self, *args, **kwargs) -> None:
        if "loss_cls" in kwargs:  # mmdet's heads look for use_sigmoid at the top
            kwargs["loss_cls"] = with_use_sigmoid(kwargs["loss_cls"])
        super().__init__(*args, **kwargs)
        if isinstance(self.loss_cls, DCLoss) and self.loss_cls.use_sigmoid != self.use_sigmoid_cls:
            raise ValueError(
                f"loss_cls is a DCLoss of use_sigmoid={self.loss_cls.use_sigmoid}, but its config "
                "does not say so: write use_sigmoid beside its type."
            )

    def loss_by_feat(self, cls_scores, bbox_preds, *args, **kwargs) -> dict:
        """mmdet's losses, with the dynamic coefficient if ``loss_cls`` is a DCLoss."""
        if not isinstance(self.loss_cls, DCLoss):
            return super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
        with self.loss_cls.batch(self.num_classes, bbox_preds) as batch:
            losses = super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
            single = isinstance(losses["loss_cls"], Tensor)
            losses["loss_cls"] = batch.losses()
            if single:
                (losses["loss_cls"],) = losses["loss_cls"]
        return losses

    def get_targets(self, priors, *args, **kwargs) -> tuple:
        """mmdet's targets; the positives' boxes are noted on the way."""
        targets = super().get_targets(priors, *args, **kwargs)
        batch = getattr(self.loss_cls, "current_batch", None)
        if batch is not None:
            labels = targets[self.labels_index]
            device = batch.bbox_preds[0].device.type
            with torch.no_grad(), torch.autocast(device, enabled=False):  # boxes in float32
                positive = batch.find_positives(labels)
                rows = torch.cat(
                    [
                        level.permute(0, 2, 3, 1).reshape(label.numel(), -1)
                        for level, label in zip(batch.bbox_preds, labels)
                    ]
                )
                rows = rows[positive].float()
                batch.add_boxes(*self.positive_boxes(rows, positive, priors, targets))
        return targets

    labels_index = 1  # of the labels in mmdet's targets

    def positive_boxes(
        self, rows: Tensor, positive: Tensor, priors, targets: tuple
    ) -> tuple[Tensor, Tensor]:
        """Predicted and GT boxes of the positives, xyxy in pixels, ``(E, 4)`` each.

        Rows are counted level by level, in a level image by image.

        Args:
            rows: box outputs of the positives, ``(E, D)``.
            positive: their places among the rows of all levels, ``(E,)``.
            priors, targets: what mmdet's ``get_targets`` took and gave.
        """
        raise NotImplementedError


def _of_level(values: Sequence[float], labels: Sequence[Tensor], positive: Tensor) -> Tensor:
    """The value of each positive's level, ``(E, 1)`` float32.

    Args:
        values: one a level.
        labels: as many as each level has rows.
        positive: see :meth:`DCMixin.positive_boxes`.
    """
    # Filled on the device: a tensor of the host's numbers would make it wait.
    rows = [
        label.new_full((label.numel(), 1), value, dtype=torch.float32)
        for value, label in zip(values, labels)
    ]
    return torch.cat(rows)[positive]


class ScoreAwareAssignMixin:
    """Before an anchor head: gives its assigner ``pred_instances.scores``, if it asks for them."""

    _logits = None  # of the images still to come, (P, C) each

    def loss_by_feat(self, cls_scores, *args, **kwargs) -> dict:
        """mmdet's losses; the class logits are kept for the assigner meanwhile."""
        if not getattr(self.assigner, "needs_scores", False):
            return super().loss_by_feat(cls_scores, *args, **kwargs)
        logits = torch.cat(
            [
                level.detach().permute(0, 2, 3, 1).reshape(len(level), -1, self.cls_out_channels)
                for level in cls_scores
            ],
            dim=1,
        )
        self._logits = list(logits)  # the images are taken one by one, in order
        try:
            return super().loss_by_feat(cls_scores, *args, **kwargs)
        finally:
            self._logits = self.assigner.scores = None

    def _get_targets_single(self, flat_anchors, valid_flags, *args, **kwargs) -> tuple:
        if self._logits is not None:
            img_meta = kwargs.get("img_meta") or next(a for a in args if isinstance(a, dict))
            inside = anchor_inside_flags(
                flat_anchors,
                valid_flags,
                img_meta["img_shape"][:2],
                self.train_cfg["allowed_border"],
            )
            self.assigner.scores = partial(self._probability, self._logits.pop(0), inside)
        return super()._get_targets_single(flat_anchors, valid_flags, *args, **kwargs)

    def _probability(
        self, logits: Tensor, inside: Tensor, prior_inds: Tensor, labels: Tensor
    ) -> Tensor:
        """Of a class at an anchor, ``(E,)``.

        Args:
            logits: of all anchors of the image, ``(P, C)``.
            inside: which of them the assigner has seen, ``(P,)`` bool.
            prior_inds, labels: the assigner's anchor and the class of each pair, ``(E,)``, on any
                device: with ``gpu_assign_thr`` mmdet assigns on the CPU.

        Returns:
            In float32, on the device of ``prior_inds``.
        """
        # The anchor at which so many have been counted; ``nonzero`` would wait for a GPU.
        rows = torch.searchsorted(inside.cumsum(0), prior_inds.to(inside.device) + 1)
        labels = labels.to(logits.device)
        if self.use_sigmoid_cls:
            found = logits[rows, labels].float().sigmoid()
        else:
            found = logits[rows].float().softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
        return found.to(prior_inds.device)


@MODELS.register_module()
class DCRetinaHead(DCMixin, ScoreAwareAssignMixin, RetinaHead):
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

    labels_index = 0

    def positive_boxes(self, rows, positive, priors, targets) -> tuple[Tensor, Tensor]:
        levels = zip(*priors)  # of the images' anchors of one level each
        anchors = torch.cat([get_box_tensor(image) for level in levels for image in level])
        anchors, target = anchors[positive], join_images(targets[2])[positive]
        if not self.reg_decoded_bbox:
            target = get_box_tensor(self.bbox_coder.decode(anchors, target))
        return get_box_tensor(self.bbox_coder.decode(anchors, rows)), target


class _CenterAnchorMixin(DCMixin, ScoreAwareAssignMixin):
    """ATSS and GFL: one anchor a location, targets that are boxes already."""

    def positive_boxes(self, rows, positive, priors, targets) -> tuple[Tensor, Tensor]:
        anchors, target = (join_images(targets[place])[positive] for place in (0, 3))
        return self._decode(anchors, rows, targets[self.labels_index], positive), target

    def _decode(self, anchors: Tensor, rows: Tensor, labels, positive: Tensor) -> Tensor:
        return self.bbox_coder.decode(anchors, rows)


@MODELS.register_module()
class DCATSSHead(_CenterAnchorMixin, ATSSHead):
    """mmdet's ATSSHead for ``DCLoss`` and ``IACATSSAssigner``.

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
class DCGFLHead(_CenterAnchorMixin, GFLHead):
    """mmdet's GFLHead for ``DCLoss`` around its quality focal loss, and ``IACATSSAssigner``.

    Args: those of mmdet's ``GFLHead``.

    Example::

        _base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCGFLHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0))))
    """

    def _decode(self, anchors: Tensor, rows: Tensor, labels, positive: Tensor) -> Tensor:
        strides = [stride[0] for stride in self.prior_generator.strides]
        distances = self.integral(rows) * _of_level(strides, labels, positive)
        return self.bbox_coder.decode(self.anchor_center(anchors), distances)


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

    labels_index = 0

    def positive_boxes(self, rows, positive, priors, targets) -> tuple[Tensor, Tensor]:
        # The location is the origin; with norm_on_bbox both are in strides while it trains.
        labels, target = targets
        target = torch.cat(target)[positive].float()
        if self.norm_on_bbox:
            unit = _of_level(self.strides, labels, positive)
            rows, target = rows * unit, target * unit
        return tuple(torch.cat([-reach[:, :2], reach[:, 2:]], dim=1) for reach in (rows, target))
