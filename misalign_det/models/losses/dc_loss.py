"""DCLoss: classification that weighs positives by how well their box fits (paper C, eq. 1 to 3)."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature

import torch
from mmdet.models.losses import EQLV2Loss, SeesawLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, reduce_mean
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ...utils import is_type
from ...utils.validation import check_choice

DISTANCE_MODES = ("enclosing", "gt", "raw")


def dynamic_coefficient(
    pred: Tensor, target: Tensor, distance: str = "enclosing", eps: float = 1e-6
) -> Tensor:
    """Reciprocal of the localisation error, lambda (paper C, eq. 1).

    ``1 / (sigmoid(d^2) + tanh(|w / h - w' / h'|) + eps)`` with d the distance of the centres: 2
    for a perfect box, towards 1 / 2 for a bad one. A pair with an infinite or NaN coordinate gets
    the least value, ``1 / (2 + eps)``.

    Args:
        pred, target: boxes xyxy in pixels, ``(E, 4)`` each.
        distance: what the squared distance is divided by: the squared diagonal of the smallest box
            around both (``'enclosing'``), that of the GT (``'gt'``), or nothing (``'raw'``, which
            a few pixels saturate).

    Returns:
        ``(E,)``, in float32 or the wider type of the boxes; all finite.
    """
    dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    # In float64 the square of any float32 is finite.
    pred, target = pred.double(), target.double()
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
    error = squared.sigmoid() + ratio.tanh()
    usable = ((pred + target).sum(dim=1) + error).isfinite()  # any other number reaches the sum
    return (1 / (torch.where(usable, error, 2) + eps)).to(dtype)


def normalized_coefficient(coefficient: Tensor, losses: Tensor) -> Tensor:
    """lambda', which leaves the positives' total loss as it was (paper C, eq. 2).

    Args:
        coefficient: lambda of each positive of this process's batch, ``(E,)``.
        losses: its classification loss, ``(E,)``, of the same dtype.

    Returns:
        ``lambda * sum(L) / sum(lambda * L)``, ``(E,)``, with the sums over the positives of all
        processes; without gradient. Exactly one where all lambda are equal. Where the sums are
        zero or not finite, lambda over the largest lambda.
    """
    with torch.no_grad():
        peak = coefficient.max() if len(coefficient) else coefficient.new_zeros(())
        all_reduce(peak, "max")
        relative = coefficient / peak
        total, weighted = reduce_mean(torch.stack([losses.sum(), (relative * losses).sum()]))
        usable = (weighted > 0) & (total - weighted).isfinite()
        return relative * torch.where(usable, total / weighted, 1)


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


@MODELS.register_module()
class DCLoss(nn.Module):
    """Dynamic coefficient loss around any classification loss of mmdet's.

    Paper C. Within the batch's positives the loss moves from badly to well localised ones; its
    sum, the negatives and the box loss stay (eq. 2 and 3). Used by the heads of
    :mod:`~misalign_det.models.dense_heads.dc_heads`, which know the boxes; in any other head it
    is the wrapped loss. Attributes that it does not have are those of the wrapped loss.

    Args:
        loss: config of the wrapped loss: focal, quality focal, varifocal, cross entropy, GHMC, ...
            It must give the loss of each row under ``reduction_override='none'``. One that takes
            no ``avg_factor``, as GHMC, keeps the divisor that it finds itself.
        distance: see :func:`dynamic_coefficient`.
        eps: of eq. 1.
        use_sigmoid: that of ``loss``. mmdet's heads read it here, and build softmax with a
            background channel without it. The heads named above fill it in; everywhere else it
            must be given for a sigmoid loss.

    Raises:
        ValueError: a loss that cannot be weighed row by row, or ``use_sigmoid`` left out or other
            than that of ``loss``.

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
        self.current_batch: DCBatch | None = None
        _check_rows(self.loss)
        self.divides_itself = not _takes(self.loss, "avg_factor")
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

    def __getattr__(self, name: str):
        # mmdet's heads ask their loss for loss_weight, custom_accuracy, get_activation, ...
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "loss":
                raise
            return getattr(self.loss, name)

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
        **kwargs,
    ) -> Tensor:
        """As the wrapped loss; inside :meth:`batch`, a placeholder for what it returns later.

        Args:
            cls_score: ``(n, C)``.
            target: labels ``(n,)``, a tuple that begins with them, or a target for each class
                ``(n, C)``, in which a row with any value above zero is a positive.
            weight: of the rows, ``(n,)``, or whatever else the wrapped loss takes.
            avg_factor, reduction_override, kwargs: as in the wrapped loss.

        Raises:
            TypeError: inside :meth:`batch`, the wrapped loss gives no loss of each row.
        """
        # Third by place: mmdet's losses call it weight, label_weight or label_weights.
        inputs = (cls_score, target) if weight is None else (cls_score, target, weight)
        call = partial(self.loss, *inputs, **kwargs)
        reduced = partial(call, avg_factor=avg_factor, reduction_override=reduction_override)
        if self.current_batch is None:
            return reduced()
        reduction = reduction_override or getattr(self.loss, "reduction", "mean")
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
        return self.current_batch.add(losses, target, reduction, avg_factor, own_value)


@dataclass
class _Call:
    """One call's unreduced losses, ``(n,)`` or ``(n, C)``, its labels, and how to reduce it."""

    losses: Tensor
    labels: Tensor
    reduction: str
    avg_factor: float | Tensor | None
    scale: Tensor | None  # what the wrapped loss multiplies their sum by, if it divides itself

    def rows(self) -> Tensor:
        """Loss of each row, ``(n,)``, without gradient, in float32 or wider.

        With the wrapped loss's own divisor, which differs between calls; the head's is the same.
        """
        losses = self.losses.detach().to(_wide(self.losses))
        rows = losses.flatten(1).sum(dim=1) if losses.ndim > 1 else losses
        return rows if self.scale is None else rows * self.scale

    def reduce(self, factor: Tensor) -> Tensor:
        """Value of the call with its rows multiplied by ``factor``, ``(n,)``."""
        factor = factor.to(self.losses.dtype).view(-1, *[1] * (self.losses.ndim - 1))
        losses = self.losses * factor
        if self.scale is None:
            return weight_reduce_loss(losses, None, self.reduction, self.avg_factor)
        return (losses.sum(dtype=_wide(losses)) * self.scale).to(losses.dtype)


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
        self._calls: list[_Call] = []
        self._num_rows: int | None = None  # of the labels whose positives are known
        self._positive: Tensor | None = None

    def is_positive(self, labels: Tensor) -> Tensor:
        """Whether each label is a class, ``(n,)`` bool; or has a class, of ``(n, C)`` targets."""
        if labels.ndim > 1:
            return (labels[:, : self.num_classes] > 0).any(dim=1)
        return (labels >= 0) & (labels < self.num_classes)

    def find_positives(self, labels: Sequence[Tensor]) -> Tensor:
        """Where the positives are among the rows of all calls, ``(E,)`` int64, ascending.

        The one wait for the device in a batch: it sizes the positives.

        Args:
            labels: of the calls' rows in their order, one tensor a level, of one image after
                another: ``(N, n)``, or ``(n,)``.
        """
        joined = join_images([level if level.ndim > 1 else level[None] for level in labels])
        self._num_rows = len(joined)
        self._positive = self.is_positive(joined).nonzero().squeeze(1)
        return self._positive

    def add_boxes(self, pred: Tensor, target: Tensor) -> None:
        """Positives' boxes, xyxy in pixels, ``(E, 4)``, in the order of the calls' rows.

        Their number must be that of the positives: see :meth:`find_positives`, or leave it to the
        batch to find them in the labels of the calls.
        """
        self._coefficients.append(
            dynamic_coefficient(pred.detach(), target, self.loss.distance, self.loss.eps)
        )

    def add(self, losses: Tensor, target, reduction: str, avg_factor, own_value) -> Tensor:
        """Keep one call's losses, ``(n,)`` or ``(n, C)``; returns a placeholder.

        ``own_value`` is what the wrapped loss makes of them by a divisor of its own, else ``None``.
        """
        labels = target[0] if isinstance(target, (tuple, list)) else target
        scale = None
        if own_value is not None:
            total = losses.detach().sum(dtype=_wide(losses))
            scale = torch.where(total != 0, own_value / total, 0)
        self._calls.append(_Call(losses, labels, reduction, avg_factor, scale))
        return losses.new_zeros(())

    def losses(self) -> list[Tensor]:
        """What each call would have returned, with eq. 3's coefficients on its positives."""
        sizes = [len(call.losses) for call in self._calls]
        rows, positive = torch.cat([call.rows() for call in self._calls]), self._positive
        if positive is None:
            positive = torch.cat([self.is_positive(call.labels) for call in self._calls])
            positive = positive.nonzero().squeeze(1)
        coefficient = torch.cat(self._coefficients) if self._coefficients else rows.new_zeros(0)
        if len(coefficient) != len(positive) or self._num_rows not in (None, len(rows)):
            raise RuntimeError(
                f"DCLoss got boxes of {len(coefficient)} positives of {self._num_rows or '?'} rows "
                f"and losses of {len(positive)} of {len(rows)}: the head and its targets do not "
                "belong together."
            )
        own = rows[positive]
        factor = torch.ones_like(rows)
        factor[positive] = normalized_coefficient(coefficient.to(own), own)
        return [call.reduce(part) for call, part in zip(self._calls, factor.split(sizes))]


def join_images(levels: Sequence[Tensor]) -> Tensor:
    """``(N, n, ...)`` a level -> ``(N * n + ..., ...)``, level by level, image by image."""
    return torch.cat([image for level in levels for image in level])


def _wide(losses: Tensor) -> torch.dtype:
    return torch.promote_types(losses.dtype, torch.float32)


def _takes(loss: nn.Module, name: str) -> bool:
    return name in signature(loss.forward).parameters


def _check_rows(loss: nn.Module) -> None:
    """Raise a ValueError for a loss that has no value of each row."""
    parameters = signature(loss.forward).parameters.values()
    named = any(p.name == "reduction_override" or p.kind == Parameter.VAR_KEYWORD
                for p in parameters)  # fmt: skip
    whole = isinstance(loss, (EQLV2Loss, SeesawLoss)) or getattr(loss, "use_mask", False)
    if whole or not named:
        raise ValueError(
            f"DCLoss weighs the loss of each row, which {type(loss).__name__} does not give under "
            "reduction_override='none'. Wrap another classification loss, FocalLoss for example."
        )
