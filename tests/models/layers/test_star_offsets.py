"""Star-shaped offsets of a coarse box by hand, and the gradient through them."""

import pytest
import torch

from misalign_det.models.layers import scale_gradient, star_dcn_offset


def test_box_offsets_by_hand():
    # A box reaching 1 left, 2 up, 3 right, 4 down: corners (-1, -2) to (3, 4), centre (1, 1).
    distances = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    grid = torch.tensor([[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=torch.float32)
    points = torch.tensor([[y, x] for y in (-2, 1, 4) for x in (-1, 1, 3)], dtype=torch.float32)
    offsets = star_dcn_offset(distances).view(9, 2)
    assert torch.equal(offsets + grid, points)
    assert torch.equal(star_dcn_offset(distances, "grid_plus_box").view(9, 2), points)


def test_a_box_of_one_stride_gives_the_regular_grid():
    assert not star_dcn_offset(torch.ones(2, 4, 3, 3)).any()


def test_gradient_into_the_box_is_scaled():
    distances = torch.rand(1, 4, 2, 2, requires_grad=True)
    weight = torch.randn(1, 18, 2, 2)
    (full,) = torch.autograd.grad(
        (star_dcn_offset(distances, gradient_mul=1) * weight).sum(), distances
    )
    (tenth,) = torch.autograd.grad((star_dcn_offset(distances) * weight).sum(), distances)
    torch.testing.assert_close(tenth, 0.1 * full)
    assert torch.equal(scale_gradient(distances, 0.1), distances)


def test_bad_mode_is_named():
    with pytest.raises(ValueError, match="grid_plus_box"):
        star_dcn_offset(torch.ones(1, 4, 1, 1), mode="star")
