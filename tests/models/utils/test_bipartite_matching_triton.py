"""Minima and matching in Triton kernels, against those on the CPU."""

import math

import pytest
import torch
from helpers.kernel_compilation import compile_for_gpus
from helpers.matching_cases import random_case

from misalign_det.models.utils import bipartite_matching
from misalign_det.models.utils.bipartite_matching import least_loss, match_locations

MODULE = "misalign_det.models.utils.bipartite_matching_triton"


def on_gpu(*args):
    return [arg.to("cuda") if isinstance(arg, torch.Tensor) else arg for arg in args]


@pytest.fixture(params=[2048, 8], ids=["one tile", "many tiles"])
def tile(request, monkeypatch):
    from misalign_det.models.utils import bipartite_matching_triton

    monkeypatch.setattr(bipartite_matching_triton, "TILE", request.param)
    monkeypatch.setattr(bipartite_matching_triton, "PAIRS", 64 if request.param > 64 else 2)


@pytest.mark.cuda
@pytest.mark.parametrize("seed", range(12))
def test_matches_as_on_the_cpu(seed, tile):
    case = random_case(seed)
    assert torch.equal(match_locations(*on_gpu(*case)).cpu(), match_locations(*case))


def grid(locations, held=None, width=None):
    """Arguments of ``match_locations``: candidate locations of each GT, and those that it holds."""
    width = width or max(map(len, locations))
    candidates = torch.tensor([[k < len(row) for k in range(width)] for row in locations])
    prior_inds = torch.tensor([row + [0] * (width - len(row)) for row in locations])
    losses = torch.arange(width) + torch.arange(float(len(locations)))[:, None]
    holds = torch.tensor([
        [k < len(row) and row[k] in has for k in range(width)]
        for row, has in zip(locations, held or [[]] * len(locations))
    ])  # fmt: skip
    return losses.masked_fill(~candidates, math.inf), prior_inds, candidates, holds, 40


def found(case):
    """Locations of each GT, on the CPU and on the GPU alike."""
    host, device = match_locations(*case), match_locations(*on_gpu(*case)).cpu()
    assert torch.equal(host, device)
    return [case[1][g, device[g]].tolist() for g in range(len(device))]


def chain(length):
    """The last GT needs what the first one holds; each can move to the next one's location."""
    locations = [[g, g + 1] for g in range(length)] + [[0]]
    return grid(locations, [[g] for g in range(length)] + [[]])


@pytest.mark.cuda
def test_matchings_by_hand(tile):
    assert found(grid([[3, 1], [3]])) == [[1], [3]]
    # From a GT that has another one, which keeps that.
    assert found(grid([[1, 2], [1]], [[1, 2], []])) == [[2], [1]]
    # No matching covers both: a GT keeps what it has.
    assert found(grid([[1], [1]], [[1], []])) == [[1], []]
    # Copies of one box, more than there are locations; and a GT without a candidate.
    assert found(grid([[1, 2, 3]] * 4 + [[]])) == [[1], [2], [3], [], []]
    assert found(grid([[1]], [[1]])) == [[1]]


@pytest.mark.cuda
def test_bounds_of_the_search(monkeypatch):
    moved = [[g + 1] for g in range(3)] + [[0]]
    assert found(chain(3)) == moved
    monkeypatch.setattr(bipartite_matching, "MAX_MOVES", 3)
    assert found(chain(3)) == moved
    # One round without moves, then one per move and the last step.
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 5)
    assert found(chain(3)) == moved
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 4)
    assert sum(map(bool, found(chain(3)))) == 3
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 32)
    monkeypatch.setattr(bipartite_matching, "MAX_MOVES", 2)
    assert found(chain(3)) == [[0], [1], [2], []]


@pytest.mark.cuda
def test_copies_of_a_box_are_matched_in_one_round(monkeypatch, tile):
    monkeypatch.setattr(bipartite_matching, "MAX_ROUNDS", 1)
    assert found(grid([list(range(12))] * 12)) == [[i] for i in range(12)]


@pytest.mark.cuda
def test_a_crowd():
    """Hundreds of GTs without a location, far fewer locations than entries of the grid."""
    torch.manual_seed(0)
    losses = (torch.rand(300, 35) * 8).round().sort(dim=1).values  # ties
    prior_inds = torch.rand(300, 320).argsort(dim=1)[:, :35]
    held = torch.zeros(300, 35, dtype=torch.bool)
    found((losses, prior_inds, ~held, held, 320))


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (1, 1), (3, 70)])
def test_any_size(shape):
    nothing = torch.zeros(shape)
    prior_inds = torch.arange(nothing.numel()).view(shape)
    held = found((nothing, prior_inds, nothing == 0, nothing > 0, max(nothing.numel(), 1)))
    assert held == [row[:1] for row in prior_inds.tolist()]


@pytest.mark.cuda
def test_least_losses(tile):
    """Ties, zeros of both signs, negative and infinite losses; a mask; strides."""
    losses = torch.tensor(
        [[1.0, 0.0, -math.inf], [1.0, -0.0, 3.0], [0.5, 2.0, math.inf], [0.7, -3.0, math.inf],
         [0.7, -2.0, 1e-40], [0.1, 4.0, -1e-40]]
    )  # fmt: skip
    prior_inds = torch.tensor([[0, 1, 2]] * 3 + [[3, 4, 5]] * 2 + [[3, 1, 5]])
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[2, 0] = mask[5, 0] = False
    least = least_loss(*on_gpu(losses, prior_inds, mask, 7)).cpu()
    assert torch.equal(least, least_loss(losses, prior_inds, mask, 7))
    assert least[:3].tolist() == [[True] * 3, [False] * 3, [False] * 3]
    assert least[3:].tolist() == [[True, True, False], [False] * 3, [False, False, True]]
    strided = losses.T.contiguous().T, prior_inds.T.contiguous().T, mask.T.contiguous().T
    assert torch.equal(least_loss(*on_gpu(*strided, 7)).cpu(), least)


@pytest.mark.cuda
def test_launches(simulated_cuda):
    case = on_gpu(*chain(3))
    if simulated_cuda is not None:
        with simulated_cuda.count() as counts:
            match_locations(*case)
            least_loss(*case[:3], 40)
        assert counts.num_syncs == 0
        assert counts.launches_by_operator() == {
            "triton.match_kernel": 1, "new_zeros": 1, "triton.bid_kernel": 1,
            "triton.least_kernel": 1,
        }  # fmt: skip


@pytest.mark.slow
def test_compiles_for_gpus():
    from misalign_det.models.utils import bipartite_matching_triton

    masks, sizes = ["*fp32", "*i64", "*i1"], dict(TILE=bipartite_matching_triton.TILE)
    kernels = [
        (MODULE, "bid_kernel", [*masks, "*i64", "i32", "i32"], sizes),
        (MODULE, "least_kernel", [*masks, "*i64", "*i1", "i32", "i32"], sizes),
    ]
    for width in (1, 35, 300):
        sizes = bipartite_matching_triton.constants(width)
        del sizes["num_warps"]
        given = [*masks, "*i1", "*i1", "*i64", "*i64", "i32", "i32", "i32"]
        kernels.append((MODULE, "match_kernel", given, sizes))
    assert compile_for_gpus(kernels) == 2 * len(kernels)
