"""mmcv's op where Triton does not work: its buffer, its precision, when it is not used."""

from importlib import import_module

import pytest
import torch

from misalign_det.models.layers import deform_conv
from misalign_det.models.layers.mmcv_deform_conv import im2col_step, mmcv_deform_conv2d


@pytest.mark.parametrize(
    ("shape", "step"),
    [
        ((1, 256, 8, 8), 1),
        ((32, 256, 8, 8), 32),
        ((33, 256, 8, 8), 11),
        ((64, 256, 8, 8), 32),
        ((37, 256, 8, 8), 1),
        ((32, 256, 100, 291), 4),  # 4 * 256 * 29,100 * 9 numbers of four bytes are below 2^30
        ((32, 256, 100, 292), 2),
        ((2, 256, 1000, 1000), 1),  # one image is beyond it; mmcv has no smaller step
        ((0, 256, 8, 8), 1),
    ],
)
def test_images_per_step_divide_the_batch(shape, step):
    assert im2col_step(torch.empty(shape, device="meta")) == step


@pytest.mark.parametrize("batch", [1, 2, 3, 16, 32, 33])
@pytest.mark.parametrize("stride", [8, 16, 32, 64, 128])
def test_the_buffer_stays_under_a_gibibyte(batch, stride):
    """At 800x1333 and 256 channels, and 32 bits can count its elements."""
    x = torch.empty(batch, 256, -(-800 // stride), -(-1344 // stride), device="meta")
    step = im2col_step(x)
    numbers = 9 * x[:step].numel()
    assert batch % step == 0 and 4 * numbers < 2**30 and numbers < 2**31


def test_samples_of_four_bytes_or_eight():
    x = torch.empty(4, 256, 100, 168, device="meta")
    assert im2col_step(x) == 4 and im2col_step(x.double()) == 2


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("allowed", [False, True])
def test_its_products_use_tf32_where_convolutions_do(monkeypatch, tf32, allowed, modulated):
    module, found = import_module(f"mmcv.ops.{'modulated_' * modulated}deform_conv"), []
    real = module.ext_module

    class Noted:
        def __getattr__(self, name):
            found.append((name.split("deform_conv_")[1], tf32.in_products))
            return getattr(real, name)

    monkeypatch.setattr(module, "ext_module", Noted())
    tf32.in_convolutions = allowed
    args = [torch.randn(2, 3, 6, 5), torch.randn(2, 18, 6, 5), torch.randn(4, 3, 3, 3)]
    args += [torch.rand(2, 9, 6, 5)] if modulated else []
    mmcv_deform_conv2d(*(arg.requires_grad_() for arg in args)).sum().backward()
    parts = ["backward"] if modulated else ["backward_input", "backward_parameters"]
    assert found == [(name, allowed) for name in ["forward", *parts]]
    assert not tf32.in_products


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setattr(deform_conv, "has_triton", lambda *args: False)


def form_taken(monkeypatch, x, offset):
    taken = []
    for name in ("gathered_deform_conv2d", "mmcv_deform_conv2d"):
        monkeypatch.setattr(
            deform_conv, name, lambda x, *args, name=name: (taken.append(name), x)[1]
        )
    deform_conv._deform_conv2d_on_cuda(x, offset, x, None, None, x.dtype)
    return taken


def test_without_triton_it_is_used(monkeypatch, without_triton):
    x, offset = torch.zeros(2, 3, 4, 5), torch.zeros(2, 18, 4, 5)
    assert form_taken(monkeypatch, x, offset) == ["mmcv_deform_conv2d"]


def test_in_deterministic_mode_it_is_not_used(monkeypatch, without_triton):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    x, offset = torch.zeros(2, 3, 4, 5), torch.zeros(2, 18, 4, 5)
    assert form_taken(monkeypatch, x, offset) == ["gathered_deform_conv2d"]


@pytest.mark.parametrize(
    "shape, form",
    [
        ((0, 256, 8, 8), "gathered_deform_conv2d"),
        ((1, 256, 970, 960), "mmcv_deform_conv2d"),
        ((1, 256, 970, 970), "gathered_deform_conv2d"),  # 9 * 256 * 970 * 970 is above 2^31
    ],
)
def test_it_is_not_used_for_more_samples_than_it_can_count(
    monkeypatch, without_triton, shape, form
):
    x = torch.empty(shape, device="meta")
    assert form_taken(monkeypatch, x, x) == [form]
