"""The mixtures of all GTs in one Triton kernel, against the fit on the CPU and scikit-learn's."""

import math

import pytest
import torch
from helpers.kernel_compilation import compile_for_gpus
from helpers.loss_rows import random_losses

from misalign_det.models.task_modules.assigners import gaussian_mixture
from misalign_det.models.task_modules.assigners.candidates import TopCandidates
from misalign_det.models.task_modules.assigners.gaussian_mixture import (
    SEPARATIONS,
    fit_mixture,
    positive_threshold,
)
from misalign_det.models.task_modules.assigners.jla_assigner import JLAAssigner

MODULE = "misalign_det.models.task_modules.assigners.gaussian_mixture_triton"
INF = math.inf


@pytest.fixture(autouse=True)
def many_rows_a_program(simulated_cuda, monkeypatch):
    """Triton's interpreter takes a while for each operation, and more to call another kernel."""
    if simulated_cuda is not None:
        from misalign_det.models.task_modules.assigners import gaussian_mixture_triton

        monkeypatch.setattr(gaussian_mixture_triton, "ROWS", 1024)
        for name in ("_fit", "_log_prob", "_log_sum_exp"):
            monkeypatch.setattr(
                gaussian_mixture_triton, name, getattr(gaussian_mixture_triton, name).fn
            )


def rows(num, widths, seed=0):
    """Loss vectors of ``random_losses``, as many of each width; kinds apart, as some take long."""
    values = torch.full((num, max(widths)), INF)
    for part, width in zip(values.chunk(len(widths)), widths):
        part[:, :width] = random_losses(len(part), width, seed + width)
    return values[(torch.arange(num) % 7).argsort(stable=True)]


def tight_among_wide(num):
    """Rows of 20: the component that starts low ends above or inside the other one in many."""
    generator = torch.Generator().manual_seed(0)
    tight = 4 + 0.2 * torch.randn(num, 12, generator=generator)
    values = torch.cat([tight, 12 * torch.rand(num, 8, generator=generator)], 1)
    return values.round(decimals=1).sort(dim=1).values


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("precisions_init, num", [(1.0, 10_000), ("sample", 1_000)])
def test_labels_equal_scikit_learn(precisions_init, num):
    """Random, tied and duplicated losses."""
    values = rows(num, (5, 18, 35, 45))
    valid = values.isfinite()
    expected = fit_mixture(values, valid, precisions_init, "sklearn").is_low
    found = fit_mixture(values.to("cuda"), valid.to("cuda"), precisions_init).is_low.cpu()
    assert (found != expected).any(dim=1).nonzero().flatten().tolist() == []


@pytest.mark.cuda
@pytest.mark.parametrize("precisions_init", [1.0, 3.7, "sample"])
def test_the_fit_is_that_of_the_cpu(precisions_init):
    values = torch.cat([rows(300, (5, 20)), tight_among_wide(400)])
    valid = values.isfinite()
    expected = fit_mixture(values, valid, precisions_init)
    found = fit_mixture(values.to("cuda"), valid.to("cuda"), precisions_init)
    assert torch.equal(found.is_low.cpu(), expected.is_low)
    for name in ("means", "variances", "weights", "log_density"):
        torch.testing.assert_close(
            getattr(found, name).cpu(), getattr(expected, name), rtol=1e-8, atol=1e-9
        )


@pytest.mark.cuda
@pytest.mark.parametrize("separation", SEPARATIONS)
@pytest.mark.parametrize("precisions_init, scale", [(1.0, 1.0), (1.0, 10.0), ("sample", 0.3)])
def test_thresholds_are_those_of_the_cpu(separation, precisions_init, scale):
    values = torch.cat([rows(210, (5, 20)), tight_among_wide(200)])
    values[3] = INF
    fit = fit_mixture(values * scale, values.isfinite(), precisions_init)
    expected = positive_threshold(values, fit, separation)
    on_gpu = values.to("cuda")
    candidates = TopCandidates(on_gpu, on_gpu.long(), on_gpu.isfinite(), on_gpu.long())
    assigner = JLAAssigner(separation=separation, precisions_init=precisions_init)
    thresholds, means = assigner._split_by_mixture(candidates, scale)
    assert torch.equal(thresholds.cpu(), expected)
    assert thresholds.dtype == torch.float32 and expected[3] == -INF
    torch.testing.assert_close(means.cpu(), fit.means / scale, rtol=1e-8, atol=1e-9)


@pytest.mark.cuda
def test_rows_by_hand():
    values = torch.full((7, 5), INF)
    for row, given in zip(values, [
        [0.7], [0.7] * 3, [1.0, 1.0 + 1e-6, 1.0 + 2e-6], [], [0.1, 0.1, 0.2, 9.0, 9.1],
        [0.0, 10.0, 20.0], [1.0, 2.0, 3.0, 4.0, 5.0],
    ]):  # fmt: skip
        row[: len(given)] = torch.tensor(given)
    low = fit_mixture(values.to("cuda"), values.isfinite().to("cuda")).is_low.cpu()
    assert low.sum(dim=1).tolist() == [1, 3, 3, 0, 3, 2, 3]
    assert not (low & values.isinf()).any()


@pytest.mark.cuda
def test_nearly_equal_losses_leave_no_gt_without_a_positive():
    """In half of such rows the high component is the likelier one for every loss."""
    torch.manual_seed(0)
    values = (1 + 1e-3 * torch.rand(40, 45)).sort(dim=1).values
    fit = fit_mixture(values.to("cuda"), values.isfinite().to("cuda"))
    assert fit.is_low[:, 0].all().item()
    assert (fit.means[:, 0] <= fit.means[:, 1]).all().item()


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0), (1, 1), (2, 300)])
def test_any_size(shape):
    from misalign_det.models.task_modules.assigners import gaussian_mixture_triton

    torch.manual_seed(0)
    values = torch.rand(shape).sort(dim=1).values
    found, means = gaussian_mixture_triton.split(values.to("cuda"), 1.0, 1.0, "crossing")
    assert found.shape == shape[:1] and means.shape == (shape[0], 2)
    if values.numel():
        fit = fit_mixture(values, values.isfinite())
        assert torch.equal(found.cpu(), positive_threshold(values, fit, "crossing"))
    else:
        assert (found.cpu() == -INF).all() and (means.cpu() == 0).all()


@pytest.mark.cuda
def test_what_is_absent_may_hold_anything():
    values = torch.tensor([[0.1, math.nan, 5.0, -INF, 5.2, 0.2]])
    valid = torch.tensor([[True, False, True, False, True, True]])
    fit = fit_mixture(values.to("cuda"), valid.to("cuda"))
    assert fit.is_low.tolist() == [[True, False, False, False, False, True]]


@pytest.mark.cuda
def test_one_launch_and_no_synchronisation(simulated_cuda):
    losses = rows(14, (20,)).to("cuda")
    candidates = TopCandidates(losses, losses.long(), losses.isfinite(), losses.long())
    if simulated_cuda is not None:
        with simulated_cuda.count() as counts:
            JLAAssigner()._split_by_mixture(candidates)
        assert counts.launches_by_operator() == {"triton.split_kernel": 1}
        assert counts.num_syncs == 0


@pytest.mark.cuda
def test_scikit_learn_on_request(monkeypatch):
    monkeypatch.setattr(gaussian_mixture, "_fit_sklearn", lambda x, mask, *start: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit_mixture(torch.rand(1, 3, device="cuda"), torch.ones(1, 3, device="cuda").bool(),
                    backend="sklearn")  # fmt: skip


@pytest.mark.slow
def test_compiles_for_gpus():
    from misalign_det.models.task_modules.assigners import gaussian_mixture_triton

    kernels = []
    for sample, block in [(False, 64), (True, 64), (False, 512)]:
        sizes = dict(
            SAMPLE=sample, VARIANCE=1.0, ROWS=1, BLOCK=block, **gaussian_mixture_triton.CONSTANTS
        )
        fitted = ["*fp32", "*fp64", "*i1", "*fp64", "i32", "i32"]
        kernels.append((MODULE, "fit_kernel", fitted, sizes))
        for separation in SEPARATIONS:
            kernels.append((
                MODULE, "split_kernel", ["*fp32", "*fp32", "*fp64", "i32", "i32"],
                dict(SCALE=10.0, SEPARATION=separation, **sizes),
            ))  # fmt: skip
    assert compile_for_gpus(kernels) == 2 * len(kernels)
