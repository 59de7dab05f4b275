"""Equations 5 and 6 and the last positive of each GT in Triton kernels, against the CPU's."""

import math

import pytest
import torch
from helpers.kernel_compilation import compile_for_gpus

from misalign_det.models.task_modules.assigners.ambiguity import (
    AMBIGUOUS_MODES,
    one_gt_per_location,
    resolve_ambiguity,
)
from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth, TopCandidates

MODULE = "misalign_det.models.task_modules.assigners.ambiguity_triton"
INF = math.inf


def random_case(seed):
    """Candidates, thresholds and number of locations: few locations for many GTs."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    num_gts, width = number(1, 40), number(1, 9)
    num_locations = width + number(0, 40)
    losses = torch.rand(num_gts, width, generator=generator).sort(dim=1).values
    if seed % 3 == 0:
        losses = (losses * 4).round() / 4  # ties, and losses of 0
    if seed % 3 == 1:
        losses = 10 ** (12 * losses - 6)
    chance = torch.rand(num_gts, generator=generator)
    losses[chance < 0.3, width // 2 :] = INF
    losses[chance > 0.95] = INF
    prior_inds = torch.rand(num_gts, num_locations, generator=generator).argsort(dim=1)[:, :width]
    thresholds = losses[:, number(0, width)]
    return losses, prior_inds, thresholds, num_locations


def resolve(case, mode, theta=0.6, device="cpu"):
    losses, prior_inds, thresholds = (
        part if part is None else part.to(device) for part in case[:3]
    )
    candidates = TopCandidates(losses, prior_inds, losses.isfinite(), torch.zeros_like(prior_inds))
    return resolve_ambiguity(candidates, thresholds, case[3], mode, theta)


def in_mmdets_form(assigned, num_locations):
    """For two images of as many locations each, the first half of the GTs in the first."""
    num_gts = len(assigned.losses)
    image_inds = (torch.arange(num_gts) >= num_gts // 2).long().to(assigned.losses.device)
    gts = BatchGroundTruth(assigned.losses[:, :1].expand(-1, 4), None, image_inds, 2)
    return one_gt_per_location(assigned, gts, num_locations // 2).cpu()


def assert_equal(found, expected):
    for name, value in vars(expected).items():
        if value is not None:
            other = getattr(found, name)
            assert other.is_cuda and other.dtype == value.dtype
            assert torch.equal(other.cpu(), value), name


@pytest.mark.cuda
@pytest.mark.parametrize("mode", AMBIGUOUS_MODES)
@pytest.mark.parametrize("seed", range(12))
def test_the_same_as_on_the_cpu(seed, mode, monkeypatch):
    """To the last digit; in one program and in several."""
    from misalign_det.models.task_modules.assigners import ambiguity_triton

    case = random_case(seed)
    if seed % 2:
        monkeypatch.setattr(ambiguity_triton, "TILE", 64)
    theta = (0.3, 0.5, 0.6)[seed % 3]
    expected, found = (resolve(case, mode, theta, device) for device in ("cpu", "cuda"))
    assert_equal(found, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("mode", AMBIGUOUS_MODES)
@pytest.mark.parametrize("seed", range(3))
def test_without_thresholds_the_same_as_on_the_cpu(seed, mode):
    losses, prior_inds, _, num_locations = random_case(seed)
    case = losses, prior_inds, None, num_locations
    expected, found = (resolve(case, mode, device=device) for device in ("cpu", "cuda"))
    assert_equal(found, expected)
    assert torch.equal((found.ambiguous | (found.weights > 0)).cpu(), losses.isfinite())


@pytest.mark.cuda
@pytest.mark.parametrize("mode", AMBIGUOUS_MODES)
@pytest.mark.parametrize("seed", range(3))
def test_mmdets_form_is_the_same_as_on_the_cpu(seed, mode):
    losses, prior_inds, thresholds, _ = random_case(seed)
    case = losses, prior_inds, thresholds, 2 * 48
    expected = in_mmdets_form(resolve(case, mode), 96)
    assert torch.equal(in_mmdets_form(resolve(case, mode, device="cuda"), 96), expected)
    assert expected.max() > 0


@pytest.mark.cuda
def test_by_hand():
    losses = torch.tensor([[1.0, 2.0, INF], [3.0, 4.0, INF], [2.5, 3.5, 4.5]])
    case = losses, torch.tensor([[0, 1, 0], [0, 2, 0], [1, 0, 3]]), losses[:, 0], 5
    # Location 0: losses 1 and 3, shares 3/4 and 1/4 (eq. 5); theta* = 0.6 (eq. 6). The second GT
    # is left with nothing and gets its free candidate.
    assigned = resolve(case, "soft", device="cuda")
    assert assigned.weights.tolist() == [[0.75, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert assigned.rescued.tolist() == [[False] * 3, [False, True, False], [False] * 3]
    assert assigned.ambiguous.tolist() == [[True, False, False]] * 2 + [[False] * 3]
    assert not assigned.ignored.any().item()


@pytest.mark.cuda
def test_a_location_that_nobody_passes_and_one_that_is_given_back():
    losses = torch.tensor([[1.0, INF], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    case = losses, torch.tensor([[0, 1], [0, 2], [3, 4], [3, 5]]), torch.ones(4), 6
    assigned = resolve(case, "ignore", device="cuda")
    # 0 is given back to the first GT, which has no other; 3 to the third, the others get theirs.
    assert assigned.weights.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert not assigned.ignored.any().item()
    case = torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[0, 1], [0, 2]]), torch.ones(2), 4
    assert resolve(case, "ignore", device="cuda").ignored.tolist() == [True, False, False, False]


@pytest.mark.cuda
@pytest.mark.parametrize("mode", AMBIGUOUS_MODES)
@pytest.mark.parametrize("shape, num_locations", [((0, 3), 5), ((2, 3), 0), ((1, 1), 1)])
def test_any_size(shape, num_locations, mode):
    losses = torch.full(shape, 1.0 if num_locations else INF)
    case = losses, torch.zeros(shape, dtype=torch.long), losses[:, 0] - 1, num_locations
    expected, found = (resolve(case, mode, device=device) for device in ("cpu", "cuda"))
    assert_equal(found, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("mode", AMBIGUOUS_MODES)
def test_five_launches_and_no_synchronisation(mode, simulated_cuda):
    losses, prior_inds, thresholds, num = random_case(2)
    losses, prior_inds = losses.to("cuda"), prior_inds.contiguous().to("cuda")
    candidates = TopCandidates(losses, prior_inds, losses.isfinite(), prior_inds)
    thresholds = thresholds.contiguous().to("cuda")
    if simulated_cuda is not None:
        with simulated_cuda.count() as counts:
            resolve_ambiguity(candidates, thresholds, num, mode)
        assert counts.num_launches == 5 and counts.num_syncs == 0


@pytest.mark.slow
def test_compiles_for_gpus():
    from misalign_det.models.utils import bipartite_matching_triton

    grid = ["*fp32", "*i64", "*i1"]
    sums = ["*fp32", "*i64", "*i64", "*fp64"]
    kernels = []
    for mode in AMBIGUOUS_MODES:
        kernels.append((
            MODULE, "location_kernel", [*grid, *sums, "i32", "i32"],
            dict(LEAST=1e-6, MODE=mode, TILE=1024),
        ))  # fmt: skip
        kernels.append((
            MODULE, "weight_kernel",
            [*grid, *sums, "*fp32", "*i1", "*i1", "*i1", "*i1", "*i64", "i32", "i32"],
            dict(THETA=0.6, LEAST=1e-6, MODE=mode, ROWS=16, BLOCK=64),
        ))  # fmt: skip
    for ignores in (True, False):
        sizes = bipartite_matching_triton.constants(35)
        del sizes["num_warps"]
        given = [*grid, "*i1", "*i64", "*fp32", "*i1", "*i1", "*i64", "*i64", "i32", "i32", "i32"]
        kernels.append((MODULE, "rescue_kernel", given, dict(IGNORES=ignores, **sizes)))
    assert compile_for_gpus(kernels, absent="fma.rn.f32") == 2 * len(kernels)
