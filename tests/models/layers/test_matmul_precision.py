"""TF32 in matrix products exactly where torch's convolutions use it, and restored afterwards."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from misalign_det.models.layers import matmul_precision
from misalign_det.models.layers.deform_im2col_cuda import im2col_deform_conv2d
from misalign_det.models.layers.matmul_precision import convolution_dtype, convolution_precision


def test_by_default_convolutions_use_tf32_and_products_do_not(tf32):
    assert tf32.in_convolutions and not tf32.in_products
    with convolution_precision():
        assert tf32.in_products
    assert not tf32.in_products and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("in_products", [False, True])
@pytest.mark.parametrize("in_convolutions", [False, True])
def test_products_follow_convolutions_and_are_restored(tf32, in_convolutions, in_products):
    tf32.in_convolutions, tf32.in_products = in_convolutions, in_products
    with convolution_precision():
        assert tf32.in_products == in_convolutions
    assert tf32.in_products == in_products
    with pytest.raises(KeyboardInterrupt), convolution_precision():
        raise KeyboardInterrupt
    assert (tf32.in_convolutions, tf32.in_products) == (in_convolutions, in_products)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_older_flag_of_convolutions(tf32, allowed):
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = allowed
        with convolution_precision():
            assert tf32.in_products == allowed
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("allowed", [False, True])
def test_before_torch_2_9(monkeypatch, allowed):
    matmul = SimpleNamespace(allow_tf32=not allowed)
    older = SimpleNamespace(
        cuda=SimpleNamespace(matmul=matmul), cudnn=SimpleNamespace(allow_tf32=allowed)
    )
    monkeypatch.setattr(matmul_precision.torch, "backends", older)
    with convolution_precision():
        assert matmul.allow_tf32 == allowed
    assert matmul.allow_tf32 != allowed


class Products(TorchDispatchMode):
    """Records for each matrix product whether it may use TF32."""

    def __init__(self, tf32):
        super().__init__()
        self.tf32, self.found = tf32, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.found.append(self.tf32.in_products)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("allowed", [False, True])
def test_the_deformable_product_in_both_directions(kernel_device, tf32, allowed):
    tf32.in_convolutions = allowed
    x, offset, weight = torch.randn(1, 3, 4, 5), torch.zeros(1, 18, 4, 5), torch.randn(2, 3, 3, 3)
    x, offset, weight = (part.to(kernel_device).requires_grad_() for part in (x, offset, weight))
    with Products(tf32) as products:
        im2col_deform_conv2d([x], [offset], weight, [], None, x.dtype).sum().backward()
    assert products.found == 3 * [allowed]
    assert not tf32.in_products


@pytest.mark.parametrize(
    "dtype, enabled, autocast, expected",
    [
        (torch.float32, True, torch.bfloat16, torch.bfloat16),
        (torch.float16, True, torch.bfloat16, torch.bfloat16),
        (torch.float64, True, torch.float16, torch.float64),
        (torch.float32, False, torch.float16, torch.float32),
        (torch.float16, False, torch.bfloat16, torch.float16),
    ],
)
@pytest.mark.cuda
def test_the_dtype_is_that_of_a_convolution(dtype, enabled, autocast, expected):
    x, weight = torch.ones(1, 1, 3, 3).to(dtype).cuda(), torch.ones(1, 1, 3, 3).to(dtype).cuda()
    with torch.autocast("cuda", dtype=autocast, enabled=enabled):
        assert convolution_dtype(x) == expected
        assert torch.nn.functional.conv2d(x, weight).dtype == expected
