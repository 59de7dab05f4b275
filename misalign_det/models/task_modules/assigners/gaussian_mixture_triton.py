"""The mixtures of all GTs in one launch on a GPU; see :mod:`.gaussian_mixture`.

A program holds the values of ``ROWS`` GTs in its registers, in float64, and takes all steps of the
EM. On a GPU ``ROWS`` is 1; Triton's interpreter is faster with fewer programs of more rows.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ....utils.triton_support import launch
from .gaussian_mixture import LOG_2PI, MAX_ITER, REG_COVAR, SMALLEST_COUNT, TIE, TOL, MixtureFit

ROWS = 1


def fit(values: Tensor, precisions_init: float | str) -> MixtureFit:
    """The same as :func:`~.gaussian_mixture.fit_mixture`.

    Args:
        values: ``(G, K)``, ``inf`` where absent.
        precisions_init: see there.
    """
    fitted = values.new_empty((3, len(values), 2), dtype=torch.float64)
    is_low = torch.empty_like(values, dtype=torch.bool)
    log_density = torch.empty_like(values, dtype=torch.float64)
    _launch(fit_kernel, values, (fitted, is_low, log_density), precisions_init)
    means, variances, weights = fitted.unbind()
    return MixtureFit(means, variances, weights, is_low, log_density)


def split(
    losses: Tensor, scale: float, precisions_init: float | str, separation: str
) -> tuple[Tensor, Tensor]:
    """Thresholds and means of the components, the low one first, in the unit of the losses.

    Args:
        losses: ``(G, K)`` float32, ``inf`` where absent.
        scale: factor on the losses that the mixture is fitted to.
        precisions_init: see :func:`~.gaussian_mixture.fit_mixture`.
        separation: see :func:`~.gaussian_mixture.positive_threshold`.

    Returns:
        Thresholds ``(G,)`` in the dtype of the losses, ``-inf`` where a GT has none, and means
        ``(G, 2)`` float64.
    """
    thresholds = losses.new_empty(len(losses))
    means = losses.new_empty((len(losses), 2), dtype=torch.float64)
    _launch(
        split_kernel, losses, (thresholds, means), precisions_init,
        SCALE=float(scale), SEPARATION=separation,
    )  # fmt: skip
    return thresholds, means


def _launch(
    kernel: Any,
    values: Tensor,
    outputs: tuple[Tensor, ...],
    precisions_init: float | str,
    **constants: Any,
) -> None:
    """Launch one of the two kernels on ``values`` ``(G, K)``, with its ``constexpr`` arguments."""
    num_gts, width = values.shape
    block = triton.next_power_of_2(max(width, 1))
    sample = isinstance(precisions_init, str)  # 'sample'
    launch(
        kernel,
        (triton.cdiv(num_gts, ROWS),),
        values.contiguous(),
        *outputs,
        num_gts,
        width,
        SAMPLE=sample,
        VARIANCE=1.0 if isinstance(precisions_init, str) else 1 / precisions_init,
        ROWS=ROWS,
        BLOCK=block,
        num_warps=min(max(block // 128, 1), 8),
        **CONSTANTS,
        **constants,
    )


CONSTANTS = dict(
    MAX_STEPS=MAX_ITER, TOL=TOL, REG=REG_COVAR, LEAST=SMALLEST_COUNT, TIE=TIE,
    HALF_LOG_2PI=LOG_2PI / 2,
)  # fmt: skip


@triton.jit(do_not_specialize=["G"])
def fit_kernel(
    values, fitted, is_low, log_density, G, K,
    SAMPLE: tl.constexpr, VARIANCE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    MAX_STEPS: tl.constexpr, TOL: tl.constexpr, REG: tl.constexpr, LEAST: tl.constexpr,
    TIE: tl.constexpr, HALF_LOG_2PI: tl.constexpr,
):  # fmt: skip
    """``fitted (3, G, 2)``, ``is_low`` and ``log_density (G, K)`` of ``values (G, K)``."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at, inside, x, exists = _load(values, row, G, K, BLOCK)
    low, density, m0, m1, v0, v1, w0, w1 = _fit(
        tl.where(exists, x, 0.0).to(tl.float64), exists,
        SAMPLE, VARIANCE, ROWS, MAX_STEPS, TOL, REG, LEAST, TIE,
    )  # fmt: skip
    tl.store(is_low + at, low, mask=inside)
    tl.store(log_density + at, density - HALF_LOG_2PI, mask=inside)
    first = fitted + row * 2
    tl.store(first, m0, mask=row < G)
    tl.store(first + 1, m1, mask=row < G)
    tl.store(first + 2 * G, v0, mask=row < G)
    tl.store(first + 2 * G + 1, v1, mask=row < G)
    tl.store(first + 4 * G, w0, mask=row < G)
    tl.store(first + 4 * G + 1, w1, mask=row < G)


@triton.jit(do_not_specialize=["G"])
def split_kernel(
    losses, thresholds, means, G, K,
    SCALE: tl.constexpr, SEPARATION: tl.constexpr,
    SAMPLE: tl.constexpr, VARIANCE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    MAX_STEPS: tl.constexpr, TOL: tl.constexpr, REG: tl.constexpr, LEAST: tl.constexpr,
    TIE: tl.constexpr, HALF_LOG_2PI: tl.constexpr,
):  # fmt: skip
    """``thresholds (G,)`` and ``means (G, 2)`` of ``losses (G, K)``; see :func:`split`."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at, inside, x, exists = _load(losses, row, G, K, BLOCK)
    low, density, m0, m1, v0, v1, w0, w1 = _fit(
        tl.where(exists, x * SCALE, 0.0).to(tl.float64), exists,
        SAMPLE, VARIANCE, ROWS, MAX_STEPS, TOL, REG, LEAST, TIE,
    )  # fmt: skip
    threshold = tl.max(tl.where(low, x, float("-inf")), 1)
    if SEPARATION == "density_peak":
        column = tl.arange(0, BLOCK)
        density = tl.where(low, density, float("-inf"))
        least = tl.max(density, 1) - tl.full([ROWS], TIE, tl.float64)
        at_peak = low & (density >= least[:, None])
        peak = tl.min(tl.where(at_peak, column[None, :], BLOCK), 1)
        threshold = tl.max(tl.where(column[None, :] == peak[:, None], x, float("-inf")), 1)
    if SEPARATION == "crossing":
        first_high = tl.min(tl.where(low, float("inf"), x), 1)
        below = tl.max(tl.where(low & (x < first_high[:, None]), x, float("-inf")), 1)
        threshold = tl.where(below > float("-inf"), below, threshold)
    tl.store(thresholds + row, threshold, mask=row < G)
    scale = tl.full([ROWS], SCALE, tl.float64)
    tl.store(means + row * 2, m0 / scale, mask=row < G)
    tl.store(means + row * 2 + 1, m1 / scale, mask=row < G)


@triton.jit
def _load(values, row, G, K, BLOCK: tl.constexpr):
    """Offsets of the rows' values, whether they are inside the grid, the values, which exist."""
    column = tl.arange(0, BLOCK)
    inside = (row[:, None] < G) & (column[None, :] < K)
    at = row[:, None].to(tl.int64) * K + column[None, :]
    x = tl.load(values + at, mask=inside, other=float("inf"))
    return at, inside, x, x < float("inf")


@triton.jit
def _fit(
    x, exists,
    SAMPLE: tl.constexpr, VARIANCE: tl.constexpr, ROWS: tl.constexpr, MAX_STEPS: tl.constexpr,
    TOL: tl.constexpr, REG: tl.constexpr, LEAST: tl.constexpr, TIE: tl.constexpr,
):  # fmt: skip
    """All of ``fit_mixture`` for the values ``x (ROWS, BLOCK)``, 0 where not ``exists``.

    Returns:
        Which values are low, and the log density without its constant, ``(ROWS, BLOCK)`` each;
        means, variances and weights of both components, the low one first, ``(ROWS,)`` each.
    """
    # A Python number in an expression may become a float32; tl.full makes a float64 of it.
    reg = tl.full([ROWS], REG, tl.float64)
    tol = tl.full([ROWS], TOL, tl.float64)
    tie = tl.full([ROWS], TIE, tl.float64)
    mask = exists.to(tl.float64)
    count = tl.sum(mask, 1)
    n = tl.maximum(count, 1.0)
    m0 = tl.where(count > 0, tl.min(tl.where(exists, x, float("inf")), 1), 0.0)
    m1 = tl.where(count > 0, tl.max(tl.where(exists, x, float("-inf")), 1), 0.0)
    if SAMPLE:
        centred = (x - (tl.sum(x, 1) / n)[:, None]) * mask
        v0 = tl.sum(centred * centred, 1) / n + reg
    else:
        v0 = tl.full([ROWS], VARIANCE, tl.float64)
    v1 = v0
    w0 = tl.full([ROWS], 0.5, tl.float64)
    w1 = w0
    least = tl.full([ROWS], LEAST, tl.float64) / n
    previous = tl.full([ROWS], float("-inf"), tl.float64)
    going = count > 1
    num_going = tl.sum(going.to(tl.int32), 0)
    step = 0
    while (num_going > 0) & (step < MAX_STEPS):
        # E step.
        l0, l1 = _log_prob(x, m0, v0, w0), _log_prob(x, m1, v1, w1)
        norm = _log_sum_exp(l0, l1)
        r0, r1 = tl.exp(l0 - norm) * mask, tl.exp(l1 - norm) * mask
        bound = tl.sum(norm * mask, 1) / n
        # M step; a row that has converged keeps its parameters.
        new_w0, new_w1 = tl.sum(r0, 1) / n + least, tl.sum(r1, 1) / n + least
        new_m0, new_m1 = tl.sum(r0 * x, 1) / n / new_w0, tl.sum(r1 * x, 1) / n / new_w1
        d0, d1 = x - new_m0[:, None], x - new_m1[:, None]
        new_v0 = tl.sum(r0 * d0 * d0, 1) / n / new_w0 + reg
        new_v1 = tl.sum(r1 * d1 * d1, 1) / n / new_w1 + reg
        m0, m1 = tl.where(going, new_m0, m0), tl.where(going, new_m1, m1)
        v0, v1 = tl.where(going, new_v0, v0), tl.where(going, new_v1, v1)
        w0, w1 = tl.where(going, new_w0, w0), tl.where(going, new_w1, w1)
        going = going & (tl.abs(bound - previous) >= tol)
        previous = bound
        num_going = tl.sum(going.to(tl.int32), 0)
        step += 1
    # Which component is the low one is known only now.
    swap = m1 < m0
    low_m, high_m = tl.where(swap, m1, m0), tl.where(swap, m0, m1)
    low_v, high_v = tl.where(swap, v1, v0), tl.where(swap, v0, v1)
    low_w, high_w = tl.where(swap, w1, w0), tl.where(swap, w0, w1)
    l0, l1 = _log_prob(x, low_m, low_v, low_w), _log_prob(x, high_m, high_v, high_w)
    low = exists & (l1 - l0 <= tie[:, None])
    nothing_low = tl.sum(low.to(tl.int32), 1) == 0
    low = low | (exists & nothing_low[:, None])
    return low, _log_sum_exp(l0, l1), low_m, high_m, low_v, high_v, low_w, high_w


@triton.jit
def _log_prob(x, mean, variance, weight):
    """As ``gaussian_mixture._component_log_prob``: ``x (ROWS, BLOCK)``, the rest ``(ROWS,)``."""
    centred = x - mean[:, None]
    constant = tl.log(weight / tl.sqrt(variance))
    return centred * centred * (-0.5 / variance)[:, None] + constant[:, None]


@triton.jit
def _log_sum_exp(a, b):
    """``log(exp(a) + exp(b))``."""
    return tl.maximum(a, b) + tl.log(1.0 + tl.exp(-tl.abs(a - b)))
