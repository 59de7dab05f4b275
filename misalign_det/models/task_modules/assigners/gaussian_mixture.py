"""Two-component 1-D Gaussian mixtures over the costs of each GT's candidates, all GTs at once.

Eq. 3 and 4 of `A Triple-head Network with Loss-aware Label Assignment for Object Detection`. One
batched EM in float64 replaces a scikit-learn fit per GT. It takes the steps of
``sklearn.mixture.GaussianMixture(2, covariance_type='full')`` in order (same start, same
convergence rule, same regularisation), so that the labels agree; ``backend='sklearn'`` runs the
original instead.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....utils.triton_support import has_triton
from ....utils.validation import check_choice
from ...utils.host_flag import HostFlag

MAX_ITER, TOL, REG_COVAR = 100, 1e-3, 1e-6  # scikit-learn's defaults
BACKENDS = ("batched", "sklearn")
SEPARATIONS = ("component", "density_peak", "crossing")
SYNC_INTERVAL = (
    4  # EM steps on a GPU after which the host is told whether any row has yet to converge
)
TIE = 1e-9  # log odds within which neither component is the likelier one
SMALLEST_COUNT = 10 * torch.finfo(torch.float64).eps
LOG_2PI = math.log(2 * math.pi)
Array = Any  # a numpy.ndarray or a torch.Tensor, as the module `xp` beside it says


@dataclass
class MixtureFit:
    """G mixtures of two components over K values each.

    Attributes:
        means, variances, weights: of the components, that of the smaller mean first, ``(G, 2)``
            float64.
        is_low: whether each value belongs to that low component, ``(G, K)`` bool.
        log_density: log density of each value under the mixture, in nats, ``(G, K)`` float64.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    is_low: Tensor
    log_density: Tensor


def fit_mixture(
    values: Tensor, valid: Tensor, precisions_init: float | str = 1.0, backend: str = "batched"
) -> MixtureFit:
    """Fit one mixture per row.

    Rows of equal values, of one value or of none are allowed. A single value, and values that the
    fit cannot tell apart, belong to the low component; absent ones belong to neither.

    Args:
        values: ``(G, K)``; finite where valid.
        valid: which values exist, ``(G, K)`` bool.
        precisions_init: starting precision of both components. ``1.0`` as in PAA and the papers
            that follow it, or ``'sample'``: the inverse variance of the row, which makes the
            labels independent of the unit of the values.
        backend: ``'batched'`` or ``'sklearn'`` (a Python loop over GTs on the CPU, for reference).

    Raises:
        ValueError: an unknown backend, or a precision that is not positive.

    Example:
        >>> costs = torch.tensor([[0.1, 0.2, 0.3, 4.0, 4.1]])
        >>> fit_mixture(costs, costs.isfinite()).is_low
        tensor([[ True,  True,  True, False, False]])
    """
    check_choice("backend", backend, BACKENDS)
    check_precision(precisions_init)
    if backend == "batched" and has_triton(values):
        from . import gaussian_mixture_triton

        return gaussian_mixture_triton.fit(values.masked_fill(~valid, math.inf), precisions_init)
    x: Array = values.double()
    mask: Array = valid
    xp: Any = torch
    fit: Callable[..., Array] = _fit_on_device
    if backend == "sklearn" or not values.is_cuda:
        # With a few dozen rows the overhead per operation decides; NumPy's is a third of torch's.
        x, mask, xp = x.cpu().numpy(), mask.cpu().numpy(), np
        fit = _fit_sklearn if backend == "sklearn" else _fit_on_host
    low = xp.amin(xp.where(mask, x, math.inf), 1)[:, None]
    high = xp.amax(xp.where(mask, x, -math.inf), 1)[:, None]
    x = xp.where(mask, x, 0.0)
    means = xp.concatenate([low, high], 1)
    means = xp.where(xp.isfinite(means), means, 0.0)  # of a row without values
    weights = xp.full_like(means, 0.5)
    variances = xp.ones_like(means) * _initial_variance(xp, x, mask, precisions_init)
    fitted = fit(x, mask, means, variances, weights)
    # Which component is the low one is known only now.
    swapped = fitted[:1, :, 1:] < fitted[:1, :, :1]
    fitted = xp.where(swapped, xp.flip(fitted, (-1,)), fitted)
    means, variances, weights = fitted
    squared = (x[:, None] - means[..., None]) ** 2
    log_prob = _component_log_prob(xp, squared, variances, weights)
    # Rounding alone would label a value that both components explain equally well; it counts as
    # low. So do a GT's equal losses and its only candidate, where both components are one.
    is_low = mask & (log_prob[:, 1] - log_prob[:, 0] <= TIE)
    # Losses that differ by a thousandth of the starting deviation make both components the same but
    # for rounding, which may make the high one the likelier for all. They are low, too.
    is_low |= mask & ~is_low.any(1)[:, None]
    log_density = xp.logaddexp(log_prob[:, 0], log_prob[:, 1]) - 0.5 * LOG_2PI
    if xp is np:
        fitted, is_low, log_density = (
            torch.from_numpy(part).to(values.device) for part in (fitted, is_low, log_density)
        )
    means, variances, weights = fitted.unbind()
    return MixtureFit(means, variances, weights, is_low, log_density)


def positive_threshold(values: Tensor, fit: MixtureFit, separation: str = "component") -> Tensor:
    """Largest value of each row that counts as positive.

    Args:
        values: ``(G, K)``.
        fit: their mixtures.
        separation: up to where values are positive. ``'component'``: the largest value of the low
            component (`A Triple-head Network with Loss-aware Label Assignment for Object
            Detection`, eq. 4); ``'density_peak'``: the low component's value of highest density,
            as in PAA; ``'crossing'``: the last low value before the first high one.

    Returns:
        ``(G,)``, ``-inf`` in a row without values.

    Raises:
        ValueError: an unknown ``separation``.
    """
    low_values = values.masked_fill(~fit.is_low, -math.inf)
    if separation == "component":
        return low_values.amax(dim=1)
    if separation == "density_peak":
        density = fit.log_density.masked_fill(~fit.is_low, -math.inf)
        # A symmetric row has equal peaks, among which rounding would choose: the first one.
        at_peak = density >= density.amax(dim=1, keepdim=True) - TIE
        peak = at_peak.int().argmax(dim=1, keepdim=True)
        return low_values.gather(1, peak).squeeze(1)
    if separation == "crossing":
        # Absent values are infinite already.
        first_high = values.masked_fill(fit.is_low, math.inf).amin(dim=1, keepdim=True)
        below = low_values.masked_fill(values >= first_high, -math.inf).amax(dim=1)
        # The low component may lie inside a wide high one: then its largest value.
        return torch.where(below.isfinite(), below, low_values.amax(dim=1))
    raise ValueError(f"separation must be one of {SEPARATIONS}, not {separation!r}.")


def _initial_variance(xp: Any, x: Array, mask: Array, precisions_init: float | str) -> Array:
    """Starting variance of both components: one per row, ``(G, 1)``, or one number."""
    if isinstance(precisions_init, str):  # 'sample'
        count = mask.sum(1)[:, None].clip(1)
        centred = xp.where(mask, x - x.sum(1)[:, None] / count, 0.0)
        return (centred**2).sum(1)[:, None] / count + REG_COVAR
    return 1 / precisions_init


def check_precision(precisions_init: float | str) -> None:
    """Check a starting precision; see :func:`fit_mixture`.

    Raises:
        ValueError: neither a positive finite number nor ``'sample'``.
    """
    number = isinstance(precisions_init, (int, float)) and 0 < precisions_init < math.inf
    if not number and precisions_init != "sample":
        raise ValueError(
            f"precisions_init must be a positive number or 'sample', not {precisions_init!r}."
        )


def _component_log_prob(xp: Any, squared: Array, variances: Array, weights: Array) -> Array:
    """Weighted log density under each component, ``(G, 2, K)``, without ``-log(2 pi) / 2``.

    Args:
        xp: ``numpy`` or ``torch``.
        squared: squared distance of each value to the component's mean, ``(G, 2, K)``.
        variances, weights: ``(G, 2)``.
    """
    constant = xp.log(weights / xp.sqrt(variances))
    return squared * (-0.5 / variances)[..., None] + constant[..., None]


# The three fits below take values (G, K), a mask of those that exist, and starting means, variances
# and weights, (G, 2) each; they return the fitted ones, (3, G, 2). The first two take
# scikit-learn's steps.


def _fit_on_host(x: np.ndarray, mask: np.ndarray, *start: np.ndarray) -> np.ndarray:
    """In NumPy; rows that have converged are left out of further steps.

    Most rows converge within five steps, the last of hundreds after some twenty.
    """
    fitted = np.array(start)  # (3, G, 2)
    count = mask.sum(1)
    rows = np.flatnonzero(count > 1)
    params: Any = fitted[:, rows]
    data, squared = _em_data(np, x[rows], mask[rows], count[rows], params[0])
    previous = np.full(len(rows), -np.inf)
    for _ in range(MAX_ITER):
        params, squared, bound = _em_step(np, *data, squared, params[1], params[2])
        going = np.abs(bound - previous) >= TOL
        num_going = np.count_nonzero(going)
        if num_going == 0:
            break
        if num_going < len(rows):
            fitted[:, rows] = params
            rows, squared, bound = rows[going], squared[going], bound[going]
            params = [part[going] for part in params]
            data = data[0][going], data[1][going], data[2][going]
        previous = bound
    fitted[:, rows] = params
    return fitted


def _fit_on_device(x: Tensor, mask: Tensor, *start: Tensor) -> Tensor:
    """In torch; all rows take as many steps as the slowest, a converged one keeps its result."""
    fitted = torch.stack(start)
    params: Any = fitted
    count = mask.sum(1)
    data, squared = _em_data(torch, x, mask.to(x.dtype), count.clip(1), params[0])
    previous = torch.full_like(x[:, 0], -math.inf)
    active = count > 1
    # On a GPU the flag may lag behind, which costs some steps that change nothing; to wait for it
    # would be a host-device synchronisation.
    going = HostFlag(x)
    for step in range(MAX_ITER):
        if not going:
            break
        params, squared, bound = _em_step(torch, *data, squared, params[1], params[2])
        fitted = torch.where(active[:, None], torch.stack(params), fitted)
        active = active & ((bound - previous).abs() >= TOL)
        previous = bound
        if step % SYNC_INTERVAL == 0:
            going.set(active.any())
    return fitted


def _em_data(
    xp: Any, x: Array, mask: Array, count: Array, means: Array
) -> tuple[tuple[Array, Array, Array], Array]:
    """What every :func:`_em_step` reads of the values, and the argument of the first one.

    Args:
        xp: ``numpy`` or ``torch``.
        x: values, 0 where absent, ``(G, K)``.
        mask: which of them exist, ``(G, K)``.
        count: how many, at least 1, ``(G,)``.
        means: starting means, ``(G, 2)``.

    Returns:
        ``row`` ``(G, 1, K)``, ``moments`` ``(G, K, 2)`` and ``least`` ``(G, 2)``, what scikit-learn
        adds to the size of a component, as a share of the values; and ``squared`` ``(G, 2, K)``.
    """
    row, count = x[:, None], count[:, None]
    share = (mask / count)[..., None]
    moments = xp.concatenate([share, share * x[..., None]], -1)  # (G, K, 2)
    least = xp.concatenate([SMALLEST_COUNT / count] * 2, 1)
    return (row, moments, least), (row - means[..., None]) ** 2


def _em_step(
    xp: Any, row: Array, moments: Array, least: Array,
    squared: Array, variances: Array, weights: Array,
) -> tuple[tuple[Array, Array, Array], Array, Array]:  # fmt: skip
    """One E and one M step.

    For a row's values ``x_k`` and components c, the E step is ``r_ck = w_c N(x_k; m_c, v_c)``,
    scaled to sum to 1 over c; the M step, with means over k, ``w_c = mean r_ck``,
    ``m_c = mean r_ck x_k / w_c``, ``v_c = mean r_ck (x_k - m_c)^2 / w_c``.

    Args:
        xp: ``numpy`` or ``torch``.
        row, moments, least: see :func:`_em_data`. A product with ``moments`` gives two means over
            the values that exist: of the other factor, and of the other factor times ``x_k``.
        squared: ``(x_k - m_c)^2``, ``(G, 2, K)``.
        variances, weights: ``(G, 2)``.

    Returns:
        New ``(means, variances, weights)``; ``squared`` for these; and, up to a constant,
        scikit-learn's lower bound: each row's mean log density under the old ones, ``(G,)``.
    """
    log_prob = _component_log_prob(xp, squared, variances, weights)
    log_norm = xp.logaddexp(log_prob[:, :1], log_prob[:, 1:])
    resp = xp.exp(log_prob - log_norm)
    bound = (log_norm @ moments)[:, 0, 0]
    sums = resp @ moments  # (G, 2, 2)
    weights = sums[..., 0] + least
    means = sums[..., 1] / weights
    squared = (row - means[..., None]) ** 2
    variances = ((resp * squared) @ moments)[..., 0] / weights + REG_COVAR
    return (means, variances, weights), squared, bound


def _fit_sklearn(x: np.ndarray, mask: np.ndarray, *start: np.ndarray) -> np.ndarray:
    """One scikit-learn fit per row."""
    from sklearn.mixture import GaussianMixture

    fitted = np.stack(start)
    for i, row in enumerate(mask):
        samples = x[i][row][:, None]
        if len(samples) < 2:
            continue
        means, variances, weights = fitted[:, i]
        mixture = GaussianMixture(
            2,
            covariance_type="full",
            weights_init=weights,
            means_init=means[:, None],
            precisions_init=1 / variances[:, None, None],
            init_params="random_from_data",
        )  # all three starts are given: the k-means that would find them is left out
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged in MAX_ITER steps: used all the same
            mixture.fit(samples)
        fitted[:, i] = mixture.means_[:, 0], mixture.covariances_[:, 0, 0], mixture.weights_
    return fitted
