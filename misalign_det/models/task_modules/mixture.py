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

MAX_ITER, TOL, REG_COVAR = 100, 1e-3, 1e-6  # scikit-learn's defaults
BOUNDARIES = ("component", "density_peak", "crossing")
TIE = 1e-9  # log odds within which neither component is the likelier one
_SMALLEST_COUNT = 10 * torch.finfo(torch.float64).eps
_LOG_2PI = math.log(2 * math.pi)


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
    values: Tensor, valid: Tensor, precision_init: float | str = 1.0, backend: str = "batched"
) -> MixtureFit:
    """Fit one mixture a row.

    Never raises on equal values, one value or none: values that the fit cannot tell apart and
    single ones all belong to the low component, absent ones to neither.

    Args:
        values: ``(G, K)``; finite where valid.
        valid: ``(G, K)`` bool.
        precision_init: starting precision of both components. ``1.0`` as in PAA and the papers
            that follow it, or ``'sample'``: the inverse variance of the row, which makes the
            labels independent of the loss's unit.
        backend: ``'batched'`` or ``'sklearn'`` (a Python loop over GTs, for reference).
    """
    count = valid.sum(dim=1)
    values = values.double().masked_fill(~valid, 0)
    low_start = values.masked_fill(~valid, math.inf).amin(dim=1)
    high_start = values.masked_fill(~valid, -math.inf).amax(dim=1)
    empty = count == 0
    means = torch.stack([low_start, high_start], dim=1).masked_fill(empty[:, None], 0)
    weights = torch.full_like(means, 0.5)
    variances = _initial_variances(values, valid, precision_init)[:, None].expand(-1, 2).clone()
    if backend == "sklearn":
        means, variances, weights = _fit_sklearn(values, valid, means, variances, weights)
    elif backend == "batched":
        means, variances, weights = _fit_batched(values, valid, means, variances, weights)
    else:
        raise ValueError(f"backend must be 'batched' or 'sklearn', not {backend!r}.")
    order = means.argsort(dim=1, stable=True)  # which one is low is known only after EM
    means, variances, weights = (part.gather(1, order) for part in (means, variances, weights))
    log_prob = _component_log_prob(values, means, variances, weights)
    # A value that both components claim alike would be labelled by rounding alone; it counts as
    # low. So do a GT's equal losses and its only candidate, where both components are one.
    is_low = valid & (log_prob[..., 1] - log_prob[..., 0] <= TIE)
    # Losses that differ by a thousandth of the start's deviation are one component twice, of which
    # rounding makes one the likelier for all. A GT keeps its candidates either way.
    is_low |= valid & ~is_low.any(dim=1, keepdim=True)
    return MixtureFit(means, variances, weights, is_low, log_prob.logsumexp(dim=-1))


def positive_threshold(values: Tensor, fit: MixtureFit, boundary: str = "component") -> Tensor:
    """Largest loss that counts as positive, one a GT (paper B, eq. 3 and 4).

    Args:
        values: ``(G, K)``.
        fit: their mixtures.
        boundary: ``'component'``, up to the largest loss of the low component (paper B);
            ``'density_peak'``, up to the low component's loss of highest density, as PAA does;
            ``'crossing'``, up to the first loss that the high component claims.

    Returns:
        ``(G,)``, ``-inf`` for a GT without candidates.
    """
    low_values = values.masked_fill(~fit.is_low, -math.inf)
    if boundary == "component":
        return low_values.amax(dim=1)
    if boundary == "density_peak":
        density = fit.log_density.masked_fill(~fit.is_low, -math.inf)
        return low_values.gather(1, density.argmax(dim=1, keepdim=True)).squeeze(1)
    if boundary == "crossing":
        high = values.isfinite() & ~fit.is_low
        first_high = values.masked_fill(~high, math.inf).amin(dim=1, keepdim=True)
        below = low_values.masked_fill(values >= first_high, -math.inf).amax(dim=1)
        # The low component may lie inside a wide high one: then its own values stand.
        return torch.where(below.isfinite(), below, low_values.amax(dim=1))
    raise ValueError(f"boundary must be one of {BOUNDARIES}, not {boundary!r}.")


def _initial_variances(values: Tensor, valid: Tensor, precision_init) -> Tensor:
    if precision_init == "sample":
        count = valid.sum(dim=1).clamp(min=1)
        mean = values.sum(dim=1) / count
        squared = ((values - mean[:, None]) ** 2).masked_fill(~valid, 0)
        return squared.sum(dim=1) / count + REG_COVAR
    if isinstance(precision_init, (int, float)) and precision_init > 0:
        return values.new_full((len(values),), 1.0 / precision_init)
    raise ValueError(
        f"precision_init must be a positive number or 'sample', not {precision_init!r}."
    )


def _component_log_prob(values, means, variances, weights) -> Tensor:
    """Weighted log probability of each value under each component, ``(G, K, 2)``."""
    squared = (values[..., None] - means[:, None]) ** 2 / variances[:, None]
    constant = weights.log() - 0.5 * (variances.log() + _LOG_2PI)
    return constant[:, None] - 0.5 * squared


def _fit_batched(values, valid, means, variances, weights):
    """scikit-learn's EM for all rows at once; a row that has converged keeps its parameters.

    For a row's values ``x_k`` and components c, the E step is ``r_ck = w_c N(x_k; m_c, v_c)``,
    scaled to sum to 1 over c; the M step, with sums over k, ``w_c = sum r_ck / K``,
    ``m_c = sum r_ck x_k / sum r_ck``, ``v_c = sum r_ck (x_k - m_c)^2 / sum r_ck``. Values
    ``(G, K)``, without unit like the losses; means, variances and weights ``(G, 2)``.

    A step on a few dozen rows costs the start of its operations, not their arithmetic: hence few
    of them, the sums over K as the last and contiguous axis, ``(G, 2, K)``.
    """
    count = valid.sum(dim=1).clamp(min=1).double()
    mask = valid.double()[:, None]
    share = mask[:, 0] / count[:, None]
    powers = torch.stack([torch.ones_like(values), values], dim=-1)  # (G, K, 2)
    row = values[:, None]
    params = torch.stack([means, variances, weights], dim=-1)  # (G, 2, 3)
    previous = torch.full_like(count, -math.inf)
    active = valid.sum(dim=1) > 1
    for _ in range(MAX_ITER):
        means, variances, weights = (part[..., None] for part in params.unbind(-1))
        constant = weights.log() - 0.5 * (variances.log() + _LOG_2PI)
        scaled = (row - means).mul_(variances.rsqrt())
        log_prob = torch.addcmul(constant, scaled, scaled, value=-0.5)
        log_norm = torch.logaddexp(log_prob[:, 0], log_prob[:, 1])
        resp = (log_prob - log_norm[:, None]).exp_().mul_(mask)
        bound = (log_norm * share).sum(dim=1)
        total, first = (resp @ powers).unbind(-1)  # sums of r and of r * value, (G, 2)
        total = total + _SMALLEST_COUNT
        new_means = first / total
        squared = (row - new_means[..., None]).square_().mul_(resp)
        new_variances = squared.sum(dim=2) / total + REG_COVAR
        new_weights = total / total.sum(dim=1, keepdim=True)
        new = torch.stack([new_means, new_variances, new_weights], dim=-1)
        params = torch.where(active[:, None, None], new, params)
        active = active & ((bound - previous).abs() >= TOL)
        previous = bound
        if _may_look(values) and not active.any():
            break
    return params.unbind(-1)


def _may_look(values: Tensor) -> bool:
    """Reading a flag is free on the CPU; on a GPU it would make the host wait."""
    return not values.is_cuda


def _fit_sklearn(values, valid, means, variances, weights):
    import warnings

    from sklearn.mixture import GaussianMixture

    out = [part.clone() for part in (means, variances, weights)]
    for i, row in enumerate(valid):
        samples = values[i][row].cpu().numpy()[:, None]
        if len(samples) < 2:
            continue
        mixture = GaussianMixture(
            2,
            covariance_type="full",
            weights_init=np.array([0.5, 0.5]),
            means_init=means[i].cpu().numpy()[:, None],
            precisions_init=1 / variances[i].cpu().numpy()[:, None, None],
            init_params="random_from_data",
        )  # everything is given: spares a k-means
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged in MAX_ITER steps: used all the same
            mixture.fit(samples)
        fitted = (mixture.means_[:, 0], mixture.covariances_[:, 0, 0], mixture.weights_)
        for target, value in zip(out, fitted):
            target[i] = torch.as_tensor(value).to(target)
    return tuple(out)
