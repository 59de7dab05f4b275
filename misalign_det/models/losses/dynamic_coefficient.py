"""The coefficients of DCLoss: equations 1 and 2 of the `Dynamic Coefficient Loss` paper."""

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import all_reduce
from torch import Tensor

DISTANCE_MODES = ("enclosing", "gt", "raw")


def dynamic_coefficient(
    pred: Tensor, target: Tensor, distance: str = "enclosing", eps: float = 1e-6
) -> Tensor:
    """Reciprocal of the localisation error, lambda (`Dynamic Coefficient Loss`, eq. 1).

    ``1 / (sigmoid(d^2) + tanh(|w / h - w' / h'|) + eps)`` with d the distance of the centres: 2
    for a perfect box, less for a worse one, at least 1 / 2. A pair with an infinite or NaN
    coordinate gets the least value, ``1 / (2 + eps)``.

    Args:
        pred, target: boxes xyxy in pixels, ``(E, 4)`` each.
        distance: what the squared distance is divided by: the squared diagonal of the smallest box
            around both (``'enclosing'``), that of the GT (``'gt'``), or nothing (``'raw'``, which
            a few pixels saturate).
        eps: added to the error; the paper gives no value.

    Returns:
        ``(E,)``, in float32 or the wider type of the boxes; all finite.

    Raises:
        ValueError: an unknown ``distance``.
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
    """lambda', which leaves the positives' total loss unchanged (eq. 2).

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
