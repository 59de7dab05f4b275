"""Classification loss of (location, GT) pairs as one Triton kernel; see :mod:`.joint_loss`.

``L_cls`` of eq. 2 in `A Triple-head Network with Loss-aware Label Assignment for Object Detection`:
the focal loss (Lin et al. 2017, eq. 5) summed over the classes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ....utils import launch
from .candidates import CandidatePairs

PAIRS, CLASSES = 16, 128  # that a program handles at a time


@triton.jit
def _softplus(x):
    # log(1 + t) to the last bit for small t too, where 1 + t rounds.
    t = tl.exp(-tl.abs(x))
    one_more = 1.0 + t
    added = tl.where(one_more == 1.0, 1.0, one_more - 1.0)
    log1p = tl.where(one_more == 1.0, t, tl.log(one_more) * (t / added))
    return tl.where(x > 0.0, x, 0.0) + tl.where(x == x, log1p, x)


@triton.jit
def _focal_of_negatives(x, gamma, GAMMA: tl.constexpr):
    """As ``joint_loss.focal_of_negatives``: ``sigmoid(x)^gamma softplus(x)``."""
    loss = _softplus(x)
    if GAMMA == 0:
        return loss
    log_p = -_softplus(-x)
    if GAMMA == 2:
        p = tl.exp(log_p)
        return p * p * loss
    return tl.exp(gamma * log_p) * loss


# Number and addresses of pairs change with each step, and Triton would compile a variant of the
# kernel for each of their kinds.
@triton.jit(do_not_specialize=["prior_inds", "gt_inds", "num_pairs"])
def focal_kernel(
    logits, prior_inds, gt_inds, gt_labels, losses,
    num_pairs, num_classes, row_stride, class_stride, alpha, gamma,
    GAMMA: tl.constexpr, PAIRS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """Each program sums the focal losses of ``PAIRS`` pairs over all classes."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    inside = pair < num_pairs
    row = tl.load(prior_inds + pair, mask=inside, other=0) * row_stride  # int64
    gt = tl.load(gt_inds + pair, mask=inside, other=0)
    label = tl.load(gt_labels + gt, mask=inside, other=0)
    total = tl.zeros([PAIRS], tl.float32)
    for first in range(0, num_classes, CLASSES):
        column = first + tl.arange(0, CLASSES)
        negative = (column[None, :] < num_classes) & (column[None, :] != label[:, None])
        negative = negative & inside[:, None]
        offset = row[:, None] + column[None, :].to(tl.int64) * class_stride
        x = tl.load(logits + offset, mask=negative, other=float("-inf")).to(tl.float32)
        total += tl.sum(_focal_of_negatives(x, gamma, GAMMA), 1)
    own = tl.load(logits + row + label * class_stride, mask=inside, other=0.0).to(tl.float32)
    loss = (1.0 - alpha) * total + alpha * _focal_of_negatives(-own, gamma, GAMMA)
    tl.store(losses + pair, loss, mask=inside)


def pair_classification_loss(
    pairs: CandidatePairs, logits: Tensor, gt_labels: Tensor, alpha: float, gamma: float
) -> Tensor:
    """The same as :func:`~.joint_loss.pair_classification_loss`, in one launch."""
    losses = torch.empty(len(pairs), device=logits.device)
    inds = [part.contiguous() for part in (pairs.prior_inds, pairs.gt_inds, gt_labels)]
    launch(
        focal_kernel, (triton.cdiv(len(pairs), PAIRS),),
        logits, *inds, losses,
        len(pairs), logits.shape[1], logits.stride(0), logits.stride(1), alpha, gamma,
        GAMMA=int(gamma) if gamma in (0, 2) else -1, PAIRS=PAIRS,
        CLASSES=min(CLASSES, triton.next_power_of_2(max(1, logits.shape[1]))), num_warps=4,
    )  # fmt: skip
    return losses
