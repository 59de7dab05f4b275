"""Two-component 1-D Gaussian mixtures over the candidate losses, all GTs at once (paper B, eq. 3).

One batched EM in float64 takes the place of a scikit-learn fit a GT. It follows the steps of
``sklearn.mixture.GaussianMixture(2, covariance_type='full')`` in order (same start, same
convergence rule, same regulariser), so that the labels agree; ``backend='sklearn'`` runs the
original instead.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....utils.triton_support import has_triton
from ....utils.validation import check_choice
from ...utils.host_flag import HostFlag, may_look

MAX_ITER, TOL, REG_COVAR = 100, 1e-3, 1e-6  # scikit-learn's defaults
BACKENDS = ("batched", "sklearn")
SEPARATIONS = ("component", "density_peak", "crossing")
SYNC_INTERVAL = 4  # EM steps on a GPU between two looks at whether any row goes on
TIE = 1e-9  # log odds within which neither component is the likelier one
SMALLEST_COUNT = 10 * torch.finfo(torch.float64).eps
LOG_2PI = math.log(2 * math.pi)


@dataclass
class MixtureFit:
    """G mixtures of two components over K values each.

    Attributes:
        means, variances, weights: ``(G, 2)`` float64, the component of the smaller mean first.
        is_low: whether each value belongs to the low component, ``(G, K)`` bool.
        log_density: log density of each value under the mixture, ``(G, K)``.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor
    is_low: Tensor
    log_density: Tensor


def fit_mixture(
    values: Tensor, valid: Tensor, precisions_init: float | str = 1.0, backend: str = "batched"
) -> MixtureFit:
    """Fit one mixture a row.

    Never raises on equal values, one value or none: values that the fit cannot tell apart and
    single ones all belong to the low component, absent ones to neither.

    Args:
        values: ``(G, K)``; finite where valid.
        valid: ``(G, K)`` bool.
        precisions_init: starting precision of both components. ``1.0`` as in PAA and the papers
            that follow it, or ``'sample'``: the inverse variance of the row, which makes the
            labels independent of the loss's unit.
        backend: ``'batched'`` or ``'sklearn'`` (a Python loop over GTs, for reference).
    """
    check_choice("backend", backend, BACKENDS)
    check_precision(precisions_init)
    if backend == "batched" and has_triton(values):
        from . import gaussian_mixture_triton

        return gaussian_mixture_triton.fit(values.masked_fill(~valid, math.inf), precisions_init)
    x, mask, lib, fit = values.double(), valid, torch, _fit_on_device
    if backend == "sklearn" or may_look(values):
        # A few dozen rows cost the start of the operations, a third of torch's in NumPy.
        x, mask, lib = x.cpu().numpy(), mask.cpu().numpy(), np
        fit = _fit_sklearn if backend == "sklearn" else _fit_on_host
    low = lib.amin(lib.where(mask, x, math.inf), 1)[:, None]
    high = lib.amax(lib.where(mask, x, -math.inf), 1)[:, None]
    x = lib.where(mask, x, 0.0)
    means = lib.concatenate([low, high], 1)
    means = lib.where(lib.isfinite(means), means, 0.0)  # of a row without values
    weights = lib.full_like(means, 0.5)
    variances = lib.ones_like(means) * _initial_variance(lib, x, mask, precisions_init)
    fitted = fit(x, mask, means, variances, weights)
    # Which component is the low one is known only now.
    swapped = fitted[:1, :, 1:] < fitted[:1, :, :1]
    fitted = lib.where(swapped, lib.flip(fitted, (-1,)), fitted)
    means, variances, weights = fitted
    squared = (x[:, None] - means[..., None]) ** 2
    log_prob = _component_log_prob(lib, squared, variances, weights)
    # A value that both components claim alike would be labelled by rounding alone; it counts as
    # low. So do a GT's equal losses and its only candidate, where both components are one.
    is_low = mask & (log_prob[:, 1] - log_prob[:, 0] <= TIE)
    # Losses that differ by a thousandth of the start's deviation are one component twice, of which
    # rounding makes one the likelier for all. A GT keeps its candidates either way.
    is_low |= mask & ~is_low.any(1)[:, None]
    log_density = lib.logaddexp(log_prob[:, 0], log_prob[:, 1]) - 0.5 * LOG_2PI
    if lib is np:
        fitted, is_low, log_density = (
            torch.from_numpy(part).to(values.device) for part in (fitted, is_low, log_density)
        )
    return MixtureFit(*fitted.unbind(), is_low, log_density)


def positive_threshold(values: Tensor, fit: MixtureFit, separation: str = "component") -> Tensor:
    """Largest loss that counts as positive, one a GT (paper B, eq. 3 and 4).

    Args:
        values: ``(G, K)``.
        fit: their mixtures.
        separation: ``'component'``, up to the largest loss of the low component (paper B);
            ``'density_peak'``, up to the low component's loss of highest density, as PAA does;
            ``'crossing'``, up to the first loss that the high component claims.

    Returns:
        ``(G,)``, ``-inf`` for a GT without candidates.
    """
    low_values = values.masked_fill(~fit.is_low, -math.inf)
    if separation == "component":
        return low_values.amax(dim=1)
    if separation == "density_peak":
        density = fit.log_density.masked_fill(~fit.is_low, -math.inf)
        # The first of a symmetric row's equal peaks, of which rounding would choose one.
        at_peak = density >= density.amax(dim=1, keepdim=True) - TIE
        peak = at_peak.int().argmax(dim=1, keepdim=True)
        return low_values.gather(1, peak).squeeze(1)
    if separation == "crossing":
        # Absent ones are infinite already.
        first_high = values.masked_fill(fit.is_low, math.inf).amin(dim=1, keepdim=True)
        below = low_values.masked_fill(values >= first_high, -math.inf).amax(dim=1)
        # The low component may lie inside a wide high one: then its own values stand.
        return torch.where(below.isfinite(), below, low_values.amax(dim=1))
    raise ValueError(f"separation must be one of {SEPARATIONS}, not {separation!r}.")


def _initial_variance(lib, x, mask, precisions_init):
    """Of every row, ``(G, 1)``, or of all alike."""
    if precisions_init == "sample":
        count = mask.sum(1)[:, None].clip(1)
        centred = lib.where(mask, x - x.sum(1)[:, None] / count, 0.0)
        return (centred**2).sum(1)[:, None] / count + REG_COVAR
    return 1 / precisions_init


def check_precision(precisions_init: float | str) -> None:
    """Raise a ValueError unless a mixture can start with it; see :func:`fit_mixture`."""
    number = isinstance(precisions_init, (int, float)) and 0 < precisions_init < math.inf
    if not number and precisions_init != "sample":
        raise ValueError(
            f"precisions_init must be a positive number or 'sample', not {precisions_init!r}."
        )


def _component_log_prob(lib, squared, variances, weights):
    """Weighted log probability under each component, ``(G, 2, K)``, by ``(x - mean)^2`` of it.

    Without the normal distribution's ``-log(2 pi) / 2``, the same for all.
    """
    constant = lib.log(weights / lib.sqrt(variances))
    return squared * (-0.5 / variances)[..., None] + constant[..., None]


# The three fits below take values (G, K), which of them are there, and where the means, variances
# and weights (G, 2) start; they return these, (3, G, 2). The batched two take scikit-learn's steps.


def _fit_on_host(x, mask, *start) -> np.ndarray:
    """A row that has converged leaves: most do within five steps, the last of hundreds after 20."""
    fitted = np.array(start)  # (3, G, 2)
    count = mask.sum(1)
    rows = np.flatnonzero(count > 1)
    params = fitted[:, rows]
    data, squared = _em_data(np, x[rows], mask[rows], count[rows], params[0])
    previous = np.full(len(rows), -np.inf)
    for _ in range(MAX_ITER):
        params, squared, bound = _em_step(np, *data, squared, *params[1:])
        going = np.abs(bound - previous) >= TOL
        num_going = np.count_nonzero(going)
        if num_going == 0:
            break
        if num_going < len(rows):
            fitted[:, rows] = params
            rows, squared, bound = rows[going], squared[going], bound[going]
            params, data = ([part[going] for part in parts] for parts in (params, data))
        previous = bound
    fitted[:, rows] = params
    return fitted


def _fit_on_device(x, mask, *start) -> Tensor:
    """All rows take the steps of the slowest; of a row that has converged no more is kept."""
    fitted = params = torch.stack(start)
    count = mask.sum(1)
    data, squared = _em_data(torch, x, mask.to(x.dtype), count.clip(1), params[0])
    previous = torch.full_like(x[:, 0], -math.inf)
    active = count > 1
    going = HostFlag(x)  # of a GPU it may be old, which costs some steps that change nothing
    for step in range(MAX_ITER):
        if not going:
            break
        params, squared, bound = _em_step(torch, *data, squared, *params[1:])
        fitted = torch.where(active[:, None], torch.stack(params), fitted)
        active = active & ((bound - previous).abs() >= TOL)
        previous = bound
        if step % SYNC_INTERVAL == 0:
            going.set(active.any())
    return fitted


def _em_data(lib, x, mask, count, means):
    """What :func:`_em_step` reads of the values, and their squares for its first call.

    Args:
        x, mask: values and which of them are there, ``(G, K)``.
        count: how many, at least 1, ``(G,)``.
        means: where they start, ``(G, 2)``.

    Returns:
        ``row (G, 1, K)``, ``moments (G, K, 2)`` and ``least (G, 2)``, scikit-learn's addition to a
        component's size as a share of the values; and ``squared (G, 2, K)``.
    """
    row, count = x[:, None], count[:, None]
    share = (mask / count)[..., None]
    moments = lib.concatenate([share, share * x[..., None]], -1)  # (G, K, 2)
    least = lib.concatenate([SMALLEST_COUNT / count] * 2, 1)
    return (row, moments, least), (row - means[..., None]) ** 2


def _em_step(lib, row, moments, least, squared, variances, weights):
    """One E and one M step, of NumPy arrays or torch tensors (``lib``).

    For a row's values ``x_k`` and components c, the E step is ``r_ck = w_c N(x_k; m_c, v_c)``,
    scaled to sum to 1 over c; the M step, with means over k, ``w_c = mean r_ck``,
    ``m_c = mean r_ck x_k / w_c``, ``v_c = mean r_ck (x_k - m_c)^2 / w_c``.

    Args:
        row, moments, least: of :func:`_em_data`; a product with ``moments`` is a mean over the
            values that are there, as they are and times ``x_k``.
        squared: ``(x_k - m_c)^2``, ``(G, 2, K)``.
        variances, weights: ``(G, 2)``.

    Returns:
        New ``(means, variances, weights)``, their ``squared``, and scikit-learn's lower bound but
        for a constant, the mean log density of each row under the old ones, ``(G,)``.
    """
    log_prob = _component_log_prob(lib, squared, variances, weights)
    log_norm = lib.logaddexp(log_prob[:, :1], log_prob[:, 1:])
    resp = lib.exp(log_prob - log_norm)
    bound = (log_norm @ moments)[:, 0, 0]
    sums = resp @ moments  # (G, 2, 2)
    weights = sums[..., 0] + least
    means = sums[..., 1] / weights
    squared = (row - means[..., None]) ** 2
    variances = ((resp * squared) @ moments)[..., 0] / weights + REG_COVAR
    return (means, variances, weights), squared, bound


def _fit_sklearn(x, mask, *start) -> np.ndarray:
    import warnings

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
        )  # everything is given: spares a k-means
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged in MAX_ITER steps: used all the same
            mixture.fit(samples)
        fitted[:, i] = mixture.means_[:, 0], mixture.covariances_[:, 0, 0], mixture.weights_
    return fitted
