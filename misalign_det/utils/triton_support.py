"""Whether Triton kernels can run on a device, and the one function that launches them.

A module of kernels (``*_triton.py``) imports ``triton`` at its top and is itself imported only
where :func:`has_triton` is true, so that the package works without Triton.
"""

import os
import warnings
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

ENVIRONMENT_VARIABLE = "MISALIGN_DET_TRITON"
# Triton 2.1 has no `enable_fp_fusion`. Nobody has run these kernels with 2.2 and 2.3, where a
# kernel that does not compile may abort the process with an assertion that cannot be caught.
MIN_MAJOR_VERSION = 3


def has_triton(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether Triton kernels can run on the device of ``x``.

    True for a CUDA tensor if Triton 3 is installed, as it is with CUDA builds of torch for Linux
    since 2.4, and can compile. Triton needs a C compiler and a GPU of compute capability 7.0. If a
    small test kernel fails, one warning gives the reason. Where it is false, callers use their
    PyTorch implementations. The environment variable ``MISALIGN_DET_TRITON=0`` makes it false; it
    is read on the first call per device.

    Args:
        x: an input of the kernel.
        dtype: of the kernel's computation, that of ``x`` by default. Kernels in bfloat16 need
            compute capability 8.0: older versions of Triton cannot compile them for less.
    """
    if not x.is_cuda or not _works(x.get_device()):
        return False
    in_bfloat16 = (dtype or x.dtype) == torch.bfloat16
    return not in_bfloat16 or torch.cuda.get_device_capability(x.get_device()) >= (8, 0)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **kwargs: Any) -> None:
    """Launch a Triton kernel on the current stream of its tensors' device.

    Args:
        kernel: a function decorated with ``triton.jit``.
        grid: number of programs along up to three axes; nothing is launched if one of them is 0.
        *args, **kwargs: passed to the kernel; its ``constexpr`` arguments and ``num_warps`` by
            keyword.
    """
    if 0 not in grid:
        _start(kernel, grid, args, kwargs)


def _start(kernel: Any, grid: tuple[int, ...], args: tuple, kwargs: dict[str, Any]) -> None:
    # Fused multiply-adds would round differently from the CPU.
    kwargs.setdefault("enable_fp_fusion", False)
    device = next(arg for arg in args if isinstance(arg, Tensor)).get_device()
    with torch.cuda.device(device):
        kernel[grid](*args, **kwargs)


@lru_cache
def _works(device: int) -> bool:
    """Whether the test kernel runs on a GPU; checked once per process and GPU."""
    if os.environ.get(ENVIRONMENT_VARIABLE) == "0" or find_spec("triton") is None:
        return False
    try:
        from triton import __version__

        if int(__version__.split(".")[0]) < MIN_MAJOR_VERSION:
            raise RuntimeError(
                f"version {__version__}, but {MIN_MAJOR_VERSION}.0 or later is needed"
            )
        from ._triton_probe import add_one

        found = torch.zeros(1, device=torch.device("cuda", device))
        launch(add_one, (1,), found)
        correct = found.item() == 1
    except Exception as error:  # from Triton, its compiler or the driver
        warnings.warn(
            f"Triton does not work on GPU {device} ({type(error).__name__}: {error}). The slower "
            "PyTorch implementations are used. Triton needs a C compiler and Python's headers.",
            stacklevel=2,
        )
        return False
    return correct
