"""The batched mixture against scikit-learn's, and its answers where scikit-learn has none."""

import inspect

import numpy as np
import pytest
import torch
from helpers.loss_rows import random_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from misalign_det.models.task_modules.assigners import gaussian_mixture
from misalign_det.models.task_modules.assigners.gaussian_mixture import (
    fit_mixture,
    positive_threshold,
)

INF = float("inf")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("precisions_init, num", [(1.0, 10_000), ("sample", 1_000)])
def test_labels_equal_scikit_learn(precisions_init, num):
    values = torch.full((num, 45), INF)
    for part, k in zip(values.chunk(4), (5, 18, 35, 45)):
        part[:, :k] = random_losses(len(part), k, seed=k)
    valid = values.isfinite()
    batched = fit_mixture(values, valid, precisions_init)
    different, undecided = [], 0
    for i, (row, mask, is_low) in enumerate(zip(values, valid, batched.is_low)):
        samples = row[mask].double().numpy()[:, None]
        precision = 1.0 if precisions_init == 1.0 else 1 / (samples.var() + 1e-6)
        gaussian_mixture = GaussianMixture(
            2,
            covariance_type="full",
            weights_init=[0.5, 0.5],
            means_init=[samples.min(0), samples.max(0)],
            precisions_init=[[[precision]]] * 2,
            init_params="random_from_data",
        )  # all three starts are given: the k-means that would find them is left out
        label = gaussian_mixture.fit_predict(samples)
        expected = label == gaussian_mixture.means_[:, 0].argmin()
        # Even odds (all losses equal, or one at the exact middle of a symmetric row): there
        # scikit-learn's label is rounding, and ours is positive.
        low_prob, high_prob = gaussian_mixture.predict_proba(samples).T
        even = np.abs(low_prob - high_prob) < 0.25e-9  # log odds of TIE
        undecided += even.any() and not even.all()
        if is_low[mask].tolist() != (expected | even).tolist() or is_low[~mask].any():
            different.append(i)
    assert different == []
    assert undecided < 0.005 * num


@pytest.mark.cuda
@pytest.mark.parametrize("precisions_init", [1.0, "sample"])
def test_the_fit_in_pytorch_on_a_gpu_is_that_of_the_cpu(precisions_init, without_triton):
    """On a GPU all rows take as many steps as the slowest."""
    values = random_losses(700, 35, seed=9)
    values[7] = INF
    values[8, 1:] = INF  # one value: nothing to fit
    valid = values.isfinite()
    on_host = fit_mixture(values, valid, precisions_init)
    on_device = fit_mixture(values.to("cuda"), valid.to("cuda"), precisions_init)
    assert torch.equal(on_host.is_low, on_device.is_low.cpu())
    for name in ("means", "variances", "weights"):
        host, device = getattr(on_host, name), getattr(on_device, name).cpu()
        torch.testing.assert_close(host, device, rtol=1e-6, atol=1e-9)


@pytest.mark.cuda
def test_a_gpu_stops_when_the_host_learns_that_all_rows_have_converged(monkeypatch, without_triton):
    """On a real GPU it may learn so some steps later, which changes nothing."""
    values = random_losses(50, 35, seed=2).to("cuda")
    step, taken = gaussian_mixture._em_step, []
    monkeypatch.setattr(
        gaussian_mixture, "_em_step", lambda *args: taken.append(None) or step(*args)
    )
    fit = fit_mixture(values, values.isfinite())
    stopped = len(taken)
    monkeypatch.setattr(gaussian_mixture, "SYNC_INTERVAL", gaussian_mixture.MAX_ITER)
    late = fit_mixture(values, values.isfinite())
    assert stopped < 50 and len(taken) - stopped == gaussian_mixture.MAX_ITER
    assert torch.equal(fit.means, late.means) and torch.equal(fit.is_low, late.is_low)


def test_losses_equal_but_for_rounding_are_all_positive():
    """scikit-learn drives both components onto one Gaussian here; rounding picks its label."""
    values = (1 + 1e-6 * torch.rand(200, 35)).sort(dim=1).values
    assert fit_mixture(values, values.isfinite()).is_low.all()


@pytest.mark.parametrize("precisions_init", [1.0, "sample"])
@pytest.mark.parametrize("backend", ["batched", "sklearn"])
def test_nearly_equal_losses_leave_no_gt_without_a_positive(precisions_init, backend):
    """In half of such rows the high component is the likelier one for every loss."""
    torch.manual_seed(0)
    values = (1 + 1e-3 * torch.rand(40, 45)).sort(dim=1).values
    fit = fit_mixture(values, values.isfinite(), precisions_init, backend)
    assert fit.is_low[:, 0].all()
    assert (positive_threshold(values, fit) >= values[:, 0]).all()


def test_one_row_against_scikit_learn_itself():
    """Not through our own backend: the call that a reader would write."""
    row = random_losses(3, 35, seed=3)[2]
    gaussian_mixture = GaussianMixture(
        2,
        covariance_type="full",
        weights_init=[0.5, 0.5],
        means_init=[[row.min()], [row.max()]],
        precisions_init=[[[1.0]], [[1.0]]],
    )
    label = gaussian_mixture.fit_predict(row.double().numpy()[:, None])
    fit = fit_mixture(row[None], row[None].isfinite())
    assert fit.is_low[0].tolist() == (label == gaussian_mixture.means_.argmin()).tolist()
    density = gaussian_mixture.score_samples(row.double().numpy()[:, None])
    np.testing.assert_allclose(fit.log_density[0].numpy(), density, rtol=1e-9)


@pytest.mark.parametrize(
    "row, expected",
    [
        ([0.7], [True]),  # one candidate: positive
        ([0.7, 0.7, 0.7], [True] * 3),  # equal losses: all positive
        ([1.0, 1.0 + 1e-6, 1.0 + 2e-6], [True] * 3),  # equal but for rounding: all positive
        ([], []),  # none
        ([0.1, 0.1, 0.2, 9.0, 9.1], [True, True, True, False, False]),
    ],
)
def test_hand_made_rows(row, expected):
    values = torch.full((1, 5), INF)
    values[0, : len(row)] = torch.tensor(row)
    fit = fit_mixture(values, values.isfinite())
    assert fit.is_low[0, : len(row)].tolist() == expected
    assert not fit.is_low[0, len(row) :].any()
    assert fit.means.isfinite().all() and fit.variances.isfinite().all()


def test_the_low_component_comes_first():
    values = random_losses(400, 35, seed=0)
    fit = fit_mixture(values, values.isfinite())
    assert (fit.means[:, 0] <= fit.means[:, 1]).all()


def test_thresholds_by_hand():
    values = torch.tensor([[0.0, 0.1, 0.2, 5.0, 5.2, INF]])
    fit = fit_mixture(values, values.isfinite())
    assert positive_threshold(values, fit, "component").item() == pytest.approx(0.2)
    assert positive_threshold(values, fit).item() == pytest.approx(0.2)
    # Three equidistant values around the mean 0.1: the density peaks at the middle one.
    assert positive_threshold(values, fit, "density_peak").item() == pytest.approx(0.1)
    assert positive_threshold(values, fit, "crossing").item() == pytest.approx(0.2)


def test_crossing_stops_before_the_tail_of_a_wide_low_component():
    values = torch.tensor([[0.0, 1.0, 2.0, 9.0]])
    fit = fit_mixture(values, values.isfinite())
    fit.is_low = torch.tensor([[True, False, False, True]])
    assert positive_threshold(values, fit, "component").item() == 9.0
    assert positive_threshold(values, fit, "crossing").item() == 0.0


def test_no_candidates_gives_no_positive():
    values = torch.full((2, 3), INF)
    fit = fit_mixture(values, values.isfinite())
    assert positive_threshold(values, fit).tolist() == [-INF, -INF]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40))
def test_any_finite_losses_give_a_finite_fit_with_the_least_loss_positive(losses):
    values = torch.tensor(sorted(losses))[None]
    fit = fit_mixture(values, values.isfinite())
    assert fit.means.isfinite().all() and fit.weights.isfinite().all()
    for separation in ("component", "density_peak", "crossing"):
        assert positive_threshold(values, fit, separation)[0] >= values[0, 0]


@pytest.mark.parametrize(
    "kwargs, named",
    [
        (dict(precisions_init=0), "precisions_init"),
        (dict(precisions_init="auto"), "precisions_init"),
        (dict(backend="numpy"), "backend"),
    ],
)
def test_bad_arguments_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        fit_mixture(torch.rand(1, 3), torch.ones(1, 3, dtype=torch.bool), **kwargs)


def test_bad_separation_is_named():
    values = torch.rand(1, 3)
    with pytest.raises(ValueError, match="density_peak"):
        positive_threshold(values, fit_mixture(values, values.isfinite()), "peak")


def test_constants_are_scikit_learns():
    defaults = inspect.signature(GaussianMixture).parameters
    assert gaussian_mixture.MAX_ITER == defaults["max_iter"].default
    assert gaussian_mixture.TOL == defaults["tol"].default
    assert gaussian_mixture.REG_COVAR == defaults["reg_covar"].default
    assert gaussian_mixture.TIE == 1e-9 and gaussian_mixture.SYNC_INTERVAL == 4


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_row_that_takes_many_steps(device, without_triton):
    """Squares: scikit-learn stops after 36 steps; after 12 six of the ten would be low."""
    values = torch.arange(10.0)[None] ** 2
    samples = values[0].double().numpy()[:, None]
    reference = GaussianMixture(
        2, weights_init=[0.5] * 2, means_init=[[0], [81]], precisions_init=[[[1.0]]] * 2
    ).fit(samples)
    assert reference.n_iter_ > 30
    values = values.to(device)
    fit = fit_mixture(values, values.isfinite())
    assert fit.is_low[0].sum().item() == 4
    np.testing.assert_allclose(fit.means[0].cpu(), reference.means_[:, 0], rtol=1e-6)
    np.testing.assert_allclose(fit.variances[0].cpu(), reference.covariances_[:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(fit.weights[0].cpu(), reference.weights_, rtol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("row", [[0.0, 1, 2], [0, 0.1, 0.2], [0, 10, 20], [1, 2, 3, 4, 5]], ids=str)
def test_the_exact_middle_of_a_symmetric_row_is_low(row, device, without_triton):
    values = torch.tensor([row], device=device)
    fit = fit_mixture(values, values.isfinite())
    assert fit.is_low[0].tolist() == [i <= len(row) // 2 for i in range(len(row))]


def test_the_component_of_the_smaller_mean_is_the_low_one(monkeypatch):
    """Whichever of the two that is after the fit."""

    def swapped(x, mask, *start):
        return np.array([[[5.0, 1.0]], [[0.4, 0.1]], [[0.3, 0.7]]])

    monkeypatch.setattr(gaussian_mixture, "_fit_on_host", swapped)
    values = torch.tensor([[1.0, 1.2, 5.0]])
    fit = fit_mixture(values, values.isfinite())
    assert fit.means.tolist() == [[1, 5]] and fit.is_low.tolist() == [[True, True, False]]
    assert fit.variances.tolist() == [[0.1, 0.4]] and fit.weights.tolist() == [[0.7, 0.3]]


def test_crossing_excludes_a_low_loss_equal_to_the_first_high_one():
    values = torch.tensor([[0.0, 1.0, 1.0]])
    fit = fit_mixture(values, values.isfinite())
    fit.is_low = torch.tensor([[True, False, True]])
    assert positive_threshold(values, fit, "crossing").item() == 0.0
    # All low losses beyond the first high one: they stand as they are.
    fit.is_low = torch.tensor([[False, True, True]])
    assert positive_threshold(values, fit, "crossing").item() == 1.0
    # An absent value is not a high loss.
    values = torch.tensor([[0.0, 1.0, INF]])
    fit.is_low = torch.tensor([[True, True, False]])
    assert positive_threshold(values, fit, "crossing").item() == 1.0


@pytest.mark.parametrize(
    "xp, array", [(np, np.array), (torch, torch.tensor)], ids=["host", "device"]
)
def test_a_component_of_no_value_keeps_scikit_learns_least_size(xp, array):
    """Its size is 10 eps, and its mean 0 instead of 0 / 0."""
    x = array([[1.0, 3.0]], dtype=xp.float64)
    data, squared = gaussian_mixture._em_data(
        xp, x, xp.ones_like(x), array([2]), array([[2.0, 1e9]], dtype=xp.float64)
    )
    start = array([[1.0, 1.0]], dtype=xp.float64), array([[0.5, 0.5]], dtype=xp.float64)
    (means, variances, weights), squared, _ = gaussian_mixture._em_step(xp, *data, squared, *start)
    np.testing.assert_allclose(means, [[2, 0]], rtol=1e-12)
    np.testing.assert_allclose(weights, [[1, 10 * np.finfo(float).eps / 2]], rtol=1e-9)
    np.testing.assert_allclose(variances, [[1 + 1e-6, 1e-6]], rtol=1e-9)
    np.testing.assert_allclose(squared, [[[1, 1], [1, 9]]], rtol=1e-9)


def test_a_sample_precision_is_the_inverse_variance_of_the_row():
    x, mask = np.array([[1.0, 3.0, 0.0]]), np.array([[True, True, False]])
    assert gaussian_mixture._initial_variance(np, x, mask, "sample").tolist() == [[1 + 1e-6]]
    assert gaussian_mixture._initial_variance(np, x, mask, 4) == 0.25


def test_the_low_peak_is_that_of_the_low_component():
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    fit = fit_mixture(values, values.isfinite())
    fit.is_low = torch.tensor([[True, True, False, False]])
    fit.log_density = torch.tensor([[-1.0, -0.5, 3.0, 4.0]])
    assert positive_threshold(values, fit, "density_peak").item() == 1.0
    assert positive_threshold(values, fit).item() == 1.0


def test_of_equal_peaks_the_first_counts():
    """As of a symmetric row, where rounding would choose."""
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0], [INF] * 4])
    fit = fit_mixture(values, values.isfinite())
    fit.is_low = torch.tensor([[True, True, True, False], [False] * 4])
    fit.log_density = torch.tensor(
        [[-1.0, -0.5 - 1e-12, -0.5, 4.0], [0.0] * 4], dtype=torch.float64
    )
    assert positive_threshold(values, fit, "density_peak").tolist() == [1.0, -INF]
