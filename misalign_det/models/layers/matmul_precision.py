"""Dtype and TF32 setting that make a matrix product as precise as torch's convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def convolution_dtype(x: Tensor) -> torch.dtype:
    """Dtype of a convolution of ``x`` on CUDA: that of autocast, else that of ``x``."""
    if x.dtype == torch.float64 or not torch.is_autocast_enabled():
        return x.dtype
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype("cuda")
    return torch.get_autocast_gpu_dtype()  # before torch 2.4


@contextmanager
def convolution_precision() -> Iterator[None]:
    """In this context float32 matrix products on CUDA use TF32 where torch's convolutions do.

    By default torch's convolutions use TF32 and its matrix products do not, so that a convolution
    by a matrix product would be slower. The setting is global in the process; it is restored.
    """
    name: str
    wanted: bool | str
    matmul = torch.backends.cuda.matmul
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is None:  # before torch 2.9
        name, wanted = "allow_tf32", torch.backends.cudnn.allow_tf32
    else:  # the older flags raise where a user has set the newer ones
        name, wanted = "fp32_precision", "tf32" if conv.fp32_precision == "tf32" else "ieee"
    before = getattr(matmul, name)
    setattr(matmul, name, wanted)
    try:
        yield
    finally:
        setattr(matmul, name, before)
