"""In which precision a layer that multiplies matrices does what a convolution would do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def convolution_dtype(x: Tensor) -> torch.dtype:
    """Of the output of a convolution of ``x`` on CUDA: autocast's, else that of ``x``."""
    if x.dtype == torch.float64 or not torch.is_autocast_enabled():
        return x.dtype
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype("cuda")
    return torch.get_autocast_gpu_dtype()  # before torch 2.4


@contextmanager
def convolution_precision() -> Iterator[None]:
    """Inside, float32 matrix products on CUDA use TF32 where torch's convolutions do.

    By default torch's convolutions use TF32, its matrix products do not: a convolution that is made
    of a product would be the slower one of the two. The setting is the process's, and is put back.
    """
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
