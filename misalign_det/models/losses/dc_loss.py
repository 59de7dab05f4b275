"""DCLoss: classification loss in which positives count more where their box fits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from mmdet.models.losses import EQLV2Loss, SeesawLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from torch import Tensor, nn

from ...utils import is_type
from ...utils.validation import check_choice
from .dynamic_coefficient import DISTANCE_MODES, dynamic_coefficient, normalized_coefficient


@dataclass
class UnreducedLoss:
    """What one call of DCLoss would reduce, in place of its value.

    Attributes:
        losses: unreduced, ``(n,)`` or ``(n, C)``.
        labels: class indices ``(n,)``, or a target for each class ``(n, C)``.
        reduction, avg_factor: of the call.
        scale: what the wrapped loss multiplies the sum of the losses by, if it divides by a number
            of its own, ``()``.
    """

    losses: Tensor
    labels: Tensor
    reduction: str
    avg_factor: float | Tensor | None
    scale: Tensor | None

    def rows(self) -> Tensor:
        """What each row adds to the loss, ``(n,)``, without gradient, in float32 or wider.

        Divided by the call's divisor: losses that find it themselves (``scale``) differ in it
        between calls, and heads that divide by their own process's positives between processes.
        """
        losses = self.losses.detach().to(_wide(self.losses))
        rows = losses.flatten(1).sum(dim=1) if losses.ndim > 1 else losses
        if self.scale is not None:
            return rows * self.scale
        if self.avg_factor is None or self.reduction == "none":
            return rows
        return rows / self.avg_factor

    def reduce(self, factor: Tensor) -> Tensor:
        """Value of the call with its rows multiplied by ``factor``, ``(n,)``."""
        factor = factor.to(self.losses.dtype).view(-1, *[1] * (self.losses.ndim - 1))
        losses = self.losses * factor
        if self.scale is None:
            return weight_reduce_loss(losses, None, self.reduction, self.avg_factor)
        return (losses.sum(dtype=_wide(losses)) * self.scale).to(losses.dtype)


@MODELS.register_module()
class DCLoss(nn.Module):
    """Dynamic coefficient loss around any of mmdet's classification losses.

    `Dynamic Coefficient Loss`, eq. 3. Within the batch, loss weight moves from badly to well
    localised positives; the sum of their losses, the negatives and the box loss stay. It is used by
    the heads of :mod:`~misalign_det.models.dense_heads.dc_heads`, which know the boxes; in any
    other head it acts as the wrapped loss. Attributes that it does not have are looked up in the
    wrapped loss.

    Args:
        loss: config of the wrapped loss: focal, quality focal, cross entropy, GHMC, ...
            It must give the loss of each row under ``reduction_override='none'``. One that takes
            no ``avg_factor``, as GHMC, keeps the divisor that it finds itself.
        distance, eps: of eq. 1; see :func:`~.dynamic_coefficient.dynamic_coefficient`.
        use_sigmoid: that of ``loss``. mmdet's heads read it here, and build softmax with a
            background channel without it. The heads named above fill it in; everywhere else it
            must be given for a sigmoid loss.

    Raises:
        ValueError: a loss that has no value per row, or ``use_sigmoid`` left out or other than that
            of ``loss``.

    Example::

        _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
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
        self.gives_unreduced = False
        _check_rows(self.loss)
        self.divides_itself = "avg_factor" not in signature(self.loss.forward).parameters
        own = getattr(self.loss, "use_sigmoid", use_sigmoid)
        if use_sigmoid is None and own:
            raise ValueError(
                f"DCLoss around {type(self.loss).__name__}, a sigmoid loss, needs use_sigmoid=True "
                "beside its type: mmdet's heads read it there and otherwise build softmax with a "
                "background channel. DCRetinaHead, DCATSSHead, DCFCOSHead and DCGFLHead fill it "
                "in; only they use the coefficients."
            )
        if use_sigmoid is not None and use_sigmoid != own:
            raise ValueError(
                f"use_sigmoid={use_sigmoid} beside a wrapped loss with {own}: leave "
                "it out of DCLoss, or make them equal."
            )
        self.use_sigmoid = bool(own)

    def __getattr__(self, name: str) -> Any:
        # mmdet's heads ask their loss for loss_weight, custom_accuracy, get_activation, ...
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "loss":
                raise
            return getattr(self.loss, name)

    @contextmanager
    def unreduced(self) -> Iterator[None]:
        """Within the block each call returns an :class:`UnreducedLoss`, for :meth:`reduce`."""
        self.gives_unreduced = True
        try:
            yield
        finally:
            self.gives_unreduced = False

    def forward(
        self,
        cls_score: Tensor,
        target: Tensor | Sequence[Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **kwargs: Any,
    ) -> Tensor | UnreducedLoss:
        """Value of the wrapped loss; within :meth:`unreduced`, its rows.

        Args:
            cls_score: ``(n, C)``.
            target: labels ``(n,)``, a tuple that begins with them, or a target for each class
                ``(n, C)``, in which a row with any value above zero is a positive.
            weight: of the rows, ``(n,)``, or whatever else the wrapped loss takes.
            avg_factor, reduction_override, **kwargs: passed to the wrapped loss.

        Raises:
            TypeError: within :meth:`unreduced`, the wrapped loss gives no loss per row.
        """
        # Third by position: mmdet's losses call it weight, label_weight or label_weights.
        inputs = (cls_score, target) if weight is None else (cls_score, target, weight)
        call = partial(self.loss, *inputs, **kwargs)
        reduced = partial(call, avg_factor=avg_factor, reduction_override=reduction_override)
        if not self.gives_unreduced:
            return reduced()
        reduction = reduction_override or str(getattr(self.loss, "reduction", "mean"))
        own_value = None
        if reduction != "none" and (avg_factor is None or self.divides_itself):
            # Asked for twice, a loss with running statistics (GHMC) must count the batch once.
            state = {name: value.clone() for name, value in self.loss.state_dict().items()}
            with torch.no_grad():
                own_value = reduced()
            self.loss.load_state_dict(state)
        losses = call(reduction_override="none")
        if not isinstance(losses, Tensor) or losses.shape[:1] != cls_score.shape[:1]:
            raise TypeError(
                f"DCLoss weighs the loss of each row, which {type(self.loss).__name__} does not "
                "give under reduction_override='none'. Wrap another classification loss."
            )
        scale = None
        if own_value is not None:
            total = losses.detach().sum(dtype=_wide(losses))
            scale = torch.where(total != 0, own_value / total, 0)
        labels = target if isinstance(target, Tensor) else target[0]
        return UnreducedLoss(losses, labels, reduction, avg_factor, scale)

    def coefficient(self, pred: Tensor, target: Tensor) -> Tensor:
        """Eq. 1 of the positives' boxes, xyxy in pixels, ``(E, 4)`` each -> ``(E,)``."""
        return dynamic_coefficient(pred.detach(), target, self.distance, self.eps)

    def reduce(
        self, calls: Sequence[UnreducedLoss], positive: Tensor, coefficient: Tensor
    ) -> list[Tensor]:
        """What each call would have returned, with eq. 3's coefficients on its positives.

        Args:
            calls: all calls of the batch, since eq. 2 sums over all levels.
            positive: indices of the positives among the rows of all calls, ``(E,)``; see
                :func:`positive_rows`.
            coefficient: eq. 1 of each, ``(E,)``.

        Raises:
            RuntimeError: not one coefficient per positive.
        """
        if len(coefficient) != len(positive):
            raise RuntimeError(
                f"DCLoss got boxes of {len(coefficient)} positives and losses of {len(positive)}: "
                "the head and its targets do not belong together."
            )
        rows = torch.cat([call.rows() for call in calls])
        own = rows[positive]
        factor = torch.ones_like(rows)
        factor[positive] = normalized_coefficient(coefficient.to(own), own)
        parts = factor.split([len(call.losses) for call in calls])
        return [call.reduce(part) for call, part in zip(calls, parts)]


def positive_rows(calls: Sequence[UnreducedLoss], num_classes: int) -> Tensor:
    """Indices of the positives among the rows of all calls, ``(E,)`` int64, ascending.

    The one host-device synchronisation in a batch: it sizes the positives.

    Args:
        calls: from :meth:`DCLoss.forward`.
        num_classes: labels from 0 to below it are positives; of targets ``(n, C)``, rows with a
            class above zero.
    """
    labels = torch.cat([call.labels for call in calls])
    if labels.ndim > 1:
        positive = (labels[:, :num_classes] > 0).any(dim=1)
    else:
        positive = (labels >= 0) & (labels < num_classes)
    return positive.nonzero().squeeze(1)


def with_use_sigmoid(loss_cls: ConfigType) -> ConfigType:
    """A head's ``loss_cls`` with ``use_sigmoid`` filled in where it is a DCLoss without it.

    Args:
        loss_cls: config of any loss; ``type`` a string, a scoped string or a class.

    Returns:
        The same config, or a copy that says whether the wrapped loss is a sigmoid one.
    """
    wrapped = loss_cls.get("loss")
    given = loss_cls.get("use_sigmoid") is not None
    if given or wrapped is None or not is_type(loss_cls.get("type"), DCLoss, MODELS):
        return loss_cls
    own = getattr(MODELS.build(wrapped), "use_sigmoid", wrapped.get("use_sigmoid", False))
    return dict(loss_cls, use_sigmoid=own)


def _wide(losses: Tensor) -> torch.dtype:
    return torch.promote_types(losses.dtype, torch.float32)


def _check_rows(loss: nn.Module) -> None:
    """Raise a ValueError for a loss that has no value per row."""
    parameters = signature(loss.forward).parameters.values()
    named = any(p.name == "reduction_override" or p.kind == Parameter.VAR_KEYWORD
                for p in parameters)  # fmt: skip
    whole = isinstance(loss, (EQLV2Loss, SeesawLoss)) or getattr(loss, "use_mask", False)
    if whole or not named:
        raise ValueError(
            f"DCLoss weighs the loss of each row, which {type(loss).__name__} does not give under "
            "reduction_override='none'. Wrap another classification loss, FocalLoss for example."
        )
