"""Steps on all levels of a pyramid at once."""

import pickle
from copy import deepcopy

import pytest
import torch
from mmcv.cnn import Scale
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from torch import nn

from misalign_det.models.utils import multi_level
from misalign_det.models.utils.multi_level import (
    CachedPointGenerator,
    flatten_levels,
    join_levels,
    scaled_levels,
    split_levels,
)

SIZES = [(2, 3), (1, 2)]


def pyramid(channels=2):
    """Numbers that tell image, channel, level, row and column."""
    return [
        torch.arange(2 * channels * height * width).view(2, channels, height, width) + 100.0 * i
        for i, (height, width) in enumerate(SIZES)
    ]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_join_and_split(layout):
    feats = [level.contiguous(memory_format=layout) for level in pyramid()]
    joined = join_levels(feats)
    assert joined[1, 1].tolist() == [18, 19, 20, 21, 22, 23, 106, 107]
    assert torch.equal(flatten_levels(feats), joined.transpose(1, 2))
    parts = split_levels(joined, feats)
    for part, level in zip(parts, feats, strict=True):
        assert torch.equal(part, level)
        assert part.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()


def test_each_level_has_its_own_scale():
    scales = nn.ModuleList([Scale(2.0), Scale(3.0)])
    feats = pyramid()
    scaled = split_levels(scaled_levels(feats, scales), feats)
    assert torch.equal(scaled[0], 2 * feats[0]) and torch.equal(scaled[1], 3 * feats[1])
    sum(map(torch.sum, scaled)).backward()
    assert [s.scale.grad.item() for s in scales] == [level.sum().item() for level in feats]


def test_half_precision_is_scaled_in_float32():
    feats = [level.bfloat16() for level in pyramid()]
    assert scaled_levels(feats, [Scale(1.0), Scale(1.0)]).dtype == torch.float32


@pytest.mark.parametrize("with_stride", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_mmdets(with_stride, dtype):
    ours, theirs = CachedPointGenerator([8, 16], 0.25), MlvlPointGenerator([8, 16], 0.25)
    for sizes in (SIZES, [(1, 1), (4, 4)], SIZES):
        found = ours.grid_priors(sizes, dtype, "cpu", with_stride)
        for mine, other in zip(found, theirs.grid_priors(sizes, dtype, "cpu", with_stride)):
            assert mine.dtype == dtype and torch.equal(mine, other)


def test_points_are_made_once_for_each_size_dtype_and_form():
    generator = CachedPointGenerator([8, 16])
    first = generator.grid_priors(SIZES, device="cpu")
    again = generator.grid_priors([torch.Size(size) for size in SIZES], device=torch.device("cpu"))
    assert all(mine is other for mine, other in zip(first, again))
    first.clear()  # the list is the caller's
    assert len(generator.grid_priors(SIZES, device="cpu")) == 2
    assert generator.grid_priors(SIZES, torch.float64, "cpu")[0].dtype == torch.float64
    assert generator.grid_priors(SIZES, device="cpu", with_stride=True)[0].shape == (6, 4)
    assert generator.grid_priors([(1, 1), (1, 1)], device="cpu")[0].shape == (1, 2)


def test_joined_points():
    points, strides = CachedPointGenerator([8, 16]).joined(pyramid())
    assert points[:6].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert points[6:].tolist() == [[8, 8], [24, 8]]
    assert strides.tolist() == [8] * 6 + [16] * 2


def test_the_oldest_points_go(monkeypatch):
    monkeypatch.setattr(multi_level, "MAX_CACHED_SIZES", 2)
    generator = CachedPointGenerator([8])
    first, second, _ = (generator.grid_priors([(1, n)], device="cpu")[0] for n in (1, 2, 3))
    assert generator.grid_priors([(1, 2)], device="cpu")[0] is second
    assert generator.grid_priors([(1, 1)], device="cpu")[0] is not first


def test_points_made_in_inference_mode_serve_a_training_step():
    generator = CachedPointGenerator([8, 16])
    with torch.inference_mode():
        generator.joined(pyramid())
    points, strides = generator.joined(pyramid())
    assert not points.is_inference()
    factor = torch.ones(8, requires_grad=True)
    (strides * factor).sum().backward()  # it saves the strides
    assert factor.grad.tolist() == strides.tolist()


@pytest.mark.parametrize("copy", [deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_makes_its_own(copy):
    generator = CachedPointGenerator([8, 16], 0.25)
    before = generator.grid_priors(SIZES, device="cpu")
    other = copy(generator)
    assert other.strides == generator.strides and other.offset == 0.25
    after = other.grid_priors(SIZES, device="cpu")
    assert torch.equal(before[0], after[0]) and before[0] is not after[0]


@pytest.mark.parametrize("traced", [(multi_level, "exporting"), (multi_level, "compiling")])
def test_nothing_is_kept_of_a_trace(monkeypatch, traced):
    monkeypatch.setattr(*traced, lambda: True)
    generator = CachedPointGenerator([8, 16])
    first, again = (generator.grid_priors(SIZES, device="cpu") for _ in range(2))
    assert torch.equal(first[0], again[0]) and first[0] is not again[0]
