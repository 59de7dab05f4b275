"""Fixtures of the layers' tests: device of the kernels, TF32 settings, launched kernels."""

import os

import pytest
import torch

from misalign_det.utils import triton_support


@pytest.fixture
def kernel_device(monkeypatch):
    """The GPU, or the CPU with kernels in Triton's interpreter."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return torch.device("cuda")
    monkeypatch.setattr(
        triton_support, "_start", lambda kernel, grid, args, kwargs: kernel[grid](*args, **kwargs)
    )
    return torch.device("cpu")


class TF32:
    """Whether torch's convolutions and its matrix products on CUDA use TF32."""

    newer = hasattr(torch.backends.cudnn, "conv")  # torch 2.9
    convs = torch.backends.cudnn.conv if newer else torch.backends.cudnn
    products = torch.backends.cuda.matmul
    flag, values = ("fp32_precision", ("ieee", "tf32")) if newer else ("allow_tf32", (False, True))

    @property
    def in_convolutions(self) -> bool:
        return getattr(self.convs, self.flag) == self.values[True]

    @in_convolutions.setter
    def in_convolutions(self, allowed: bool) -> None:
        setattr(self.convs, self.flag, self.values[allowed])

    @property
    def in_products(self) -> bool:
        return getattr(self.products, self.flag) == self.values[True]

    @in_products.setter
    def in_products(self, allowed: bool) -> None:
        setattr(self.products, self.flag, self.values[allowed])


@pytest.fixture
def tf32():
    """The global settings, restored after the test."""
    kept = TF32()
    before = [getattr(part, kept.flag) for part in (kept.convs, kept.products)]
    yield kept
    for part, value in zip((kept.convs, kept.products), before):
        setattr(part, kept.flag, value)


@pytest.fixture
def launched(monkeypatch):
    """``(name, arguments, constants)`` of each kernel that is launched, in order."""
    found, start = [], triton_support._start

    def record(kernel, grid, args, kwargs):
        found.append((kernel.__name__, args, kwargs))
        start(kernel, grid, args, kwargs)

    monkeypatch.setattr(triton_support, "_start", record)
    return found
