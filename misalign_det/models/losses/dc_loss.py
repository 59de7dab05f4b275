"""DCLoss: classification that weighs positives by how well their box fits (paper C, eq. 1 to 3)."""

from collections.abc import Sequence
from contextlib import contextmanager

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, reduce_mean
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ..choices import check_choice

DISTANCE_MODES = ("enclosing", "gt", "raw")


def dynamic_coefficient(
    pred: Tensor, target: Tensor, distance: str = "enclosing", eps: float = 1e-6
) -> Tensor:
    """Reciprocal of the localisation error, lambda (paper C, eq. 1).

    ``1 / (sigmoid(d^2) + tanh(|w / h - w' / h'|) + eps)`` with d the distance of the centres: 2
    for a perfect box, towards 1 / 2 for a bad one.

    Args:
        pred, target: boxes xyxy in pixels, ``(E, 4)`` each.
        distance: what the squared distance is divided by: the squared diagonal of the smallest box
            around both (``'enclosing'``), that of the GT (``'gt'``), or nothing (``'raw'``, which
            a few pixels saturate).

    Returns:
        ``(E,)``.
    """
    size, target_size = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6) for boxes in (pred, target))
    squared = ((pred[:, :2] + pred[:, 2:] - target[:, :2] - target[:, 2:]) / 2).square().sum(dim=1)
    if distance == "enclosing":
        enclosing = torch.max(pred[:, 2:], target[:, 2:]) - torch.min(pred[:, :2], target[:, :2])
        squared = squared / enclosing.square().sum(dim=1).clamp(min=1e-12)
    elif distance == "gt":
        squared = squared / target_size.square().sum(dim=1)
    elif distance != "raw":
        raise ValueError(f"distance must be one of {DISTANCE_MODES}, not {distance!r}.")
    ratio = (size[:, 0] / size[:, 1] - target_size[:, 0] / target_size[:, 1]).abs()
    return 1 / (squared.sigmoid() + ratio.tanh() + eps)


def normalized_coefficient(coefficient: Tensor, losses: Tensor) -> Tensor:
    """lambda', which leaves the positives' total loss as it was (paper C, eq. 2).

    Args:
        coefficient: lambda of each positive of this process's batch, ``(E,)``.
        losses: its classification loss, ``(E,)``.

    Returns:
        ``lambda * sum(L) / sum(lambda * L)``, ``(E,)``, with the sums over the positives of all
        processes; without gradient. Exactly one where all lambda are equal.
    """
    with torch.no_grad():
        peak = coefficient.max() if len(coefficient) else coefficient.new_zeros(())
        all_reduce(peak, "max")
        relative = coefficient / peak
        total, weighted = reduce_mean(torch.stack([losses.sum(), (relative * losses).sum()]))
        scale = torch.where(weighted > 0, total / weighted, torch.ones_like(weighted))
        return relative * scale


@MODELS.register_module()
class DCLoss(nn.Module):
    """Dynamic coefficient loss around any classification loss of mmdet's.

    Paper C. Within the batch's positives the loss moves from badly to well localised ones; its
    sum, the negatives and the box loss stay (eq. 2 and 3). Used by the heads of
    :mod:`~misalign_det.models.dense_heads.dc_heads`, which know the boxes; in any other head it
    is the wrapped loss.

    Args:
        loss: config of the wrapped loss: focal, quality focal, cross entropy, ...
        distance: see :func:`dynamic_coefficient`.
        eps: of eq. 1.
        use_sigmoid: that of ``loss``; mmdet's heads read it here. Filled in by the heads named
            above.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        model = dict(bbox_head=dict(
            type='DCRetinaHead',
            loss_cls=dict(_delete_=True, type='DCLoss', loss=dict(
                type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25))))
    """

    def __init__(
        self,
        loss: ConfigType,
        distance: str = "enclosing",
        eps: float = 1e-6,
        use_sigmoid: bool | None = None,
    ) -> None:
        super().__init__()
        check_choice("distance", distance, DISTANCE_MODES)
        self.loss = MODELS.build(loss)
        self.distance = distance
        self.eps = eps
        self.use_sigmoid = getattr(self.loss, "use_sigmoid", False)
        if use_sigmoid is not None and use_sigmoid != self.use_sigmoid:
            raise ValueError(
                f"use_sigmoid={use_sigmoid} beside a wrapped loss with {self.use_sigmoid}: leave "
                "it out of DCLoss, or make them equal."
            )
        self.current_batch: DCBatch | None = None

    @contextmanager
    def batch(self, num_classes: int, bbox_preds: Sequence[Tensor] = ()):
        """While it lasts, calls are collected, for eq. 2 runs over all levels of the batch.

        Args:
            num_classes: labels below it are positives.
            bbox_preds: the head's box outputs, kept for whoever adds the positives' boxes.

        Yields:
            DCBatch: takes the coefficients, gives the losses.
        """
        self.current_batch = DCBatch(self, num_classes, bbox_preds)
        try:
            yield self.current_batch
        finally:
            self.current_batch = None

    def forward(
        self,
        cls_score: Tensor,
        target,
        weight: Tensor | None = None,
        avg_factor=None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """As the wrapped loss; inside :meth:`batch`, a placeholder for what it returns later."""
        if self.current_batch is None:
            return self.loss(
                cls_score,
                target,
                weight,
                avg_factor=avg_factor,
                reduction_override=reduction_override,
            )
        losses = self.loss(cls_score, target, weight, reduction_override="none")
        return self.current_batch.add(losses, target, avg_factor)


class DCBatch:
    """The unreduced losses of one batch, level by level.

    Args:
        loss: the DCLoss that collects.
        num_classes: labels below it are positives.
        bbox_preds: the head's box outputs a level.
    """

    def __init__(self, loss: DCLoss, num_classes: int, bbox_preds: Sequence[Tensor] = ()) -> None:
        self.loss = loss
        self.num_classes = num_classes
        self.bbox_preds = bbox_preds
        self._coefficients: list[Tensor] = []
        self._calls: list[tuple] = []

    def is_positive(self, labels: Tensor) -> Tensor:
        """Whether each label is a class, ``(n,)`` bool."""
        return (labels >= 0) & (labels < self.num_classes)

    def add_boxes(self, pred: Tensor, target: Tensor) -> None:
        """Positives' boxes, xyxy in pixels, ``(E, 4)``, in the order of the calls' rows."""
        self._coefficients.append(
            dynamic_coefficient(
                pred.detach().float(), target.float(), self.loss.distance, self.loss.eps
            )
        )

    def add(self, losses: Tensor, target, avg_factor) -> Tensor:
        """Keep one call's losses, ``(n,)`` or ``(n, C)``; returns a placeholder."""
        labels = target[0] if isinstance(target, tuple) else target
        self._calls.append((losses, self.is_positive(labels), avg_factor))
        return losses.new_zeros(())

    def losses(self) -> list[Tensor]:
        """What each call would have returned, with eq. 3's coefficients on its positives."""
        rows = [
            losses.flatten(1).sum(dim=1) if losses.ndim > 1 else losses
            for losses, _, _ in self._calls
        ]
        own = torch.cat([row[positive] for row, (_, positive, _) in zip(rows, self._calls)])
        coefficient = torch.cat(self._coefficients) if self._coefficients else own.new_zeros(0)
        if len(coefficient) != len(own):
            raise RuntimeError(
                f"DCLoss got boxes of {len(coefficient)} positives and losses of {len(own)}: the "
                "head and its targets do not belong together."
            )
        normalized = normalized_coefficient(coefficient.to(own), own.detach())
        results, first = [], 0
        for losses, positive, avg_factor in self._calls:
            count = int(positive.sum())
            factor = losses.new_ones(len(losses))
            factor[positive] = normalized[first : first + count]
            first += count
            factor = factor.view(-1, *[1] * (losses.ndim - 1))
            reduction = self.loss.loss.reduction
            results.append(weight_reduce_loss(losses * factor, None, reduction, avg_factor))
        return results
