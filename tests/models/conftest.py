"""Fixtures that tests of several parts of the models share."""

import pytest

from misalign_det.utils import triton_support


@pytest.fixture
def without_triton(monkeypatch, simulated_cuda):
    """CUDA tensors are computed in PyTorch, as where Triton does not work."""
    monkeypatch.setattr(triton_support, "_works", lambda device: False)
