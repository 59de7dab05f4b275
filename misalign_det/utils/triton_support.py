"""Whether kernels written in Triton can run on a device, and the one place that launches them.

A file of kernels imports ``triton`` at its top and is itself imported only where :func:`has_triton`
is true, so that the package works without Triton.
"""

import os
import warnings
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

SWITCH = "MISALIGN_DET_TRITON"
# Of Triton. 2.1 knows no `enable_fp_fusion`. 2.2 and 2.3 have not run these kernels, and where one
# of them does not compile, the process may end in an assertion that nothing can catch.
LEAST_VERSION = 3


def has_triton(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether Triton kernels can run on the device of ``x``.

    True for a CUDA tensor where Triton 3 is installed, as it is with CUDA builds of torch for Linux
    from 2.4 on, and can compile. Triton needs a C compiler and a GPU of compute capability 7.0;
    where a first small kernel fails, one warning says why, and the PyTorch implementations are
    used. So they are where the environment variable ``MISALIGN_DET_TRITON`` is 0 when the first
    tensor of the device is asked about.

    Args:
        x: what a kernel is to read.
        dtype: of what it computes, that of ``x`` by default. Kernels in bfloat16 need compute
            capability 8.0: older Triton cannot compile them for less.
    """
    if not x.is_cuda or not _works(x.get_device()):
        return False
    in_bfloat16 = (dtype or x.dtype) == torch.bfloat16
    return not in_bfloat16 or torch.cuda.get_device_capability(x.get_device()) >= (8, 0)


def launch(kernel, grid: tuple[int, ...], *args, **kwargs) -> None:
    """Launch a Triton kernel on the current stream of its tensors' device.

    Args:
        kernel: a function decorated with ``triton.jit``.
        grid: number of programs along up to three axes; nothing is launched if one is 0.
        *args, **kwargs: passed to the kernel; its ``constexpr`` arguments and ``num_warps`` by
            keyword.
    """
    if 0 not in grid:
        _start(kernel, grid, args, kwargs)


def _start(kernel, grid, args, kwargs) -> None:
    # A product and a sum fused into one operation would round in another way than the CPU does.
    kwargs.setdefault("enable_fp_fusion", False)
    device = next(arg for arg in args if isinstance(arg, Tensor)).get_device()
    with torch.cuda.device(device):
        kernel[grid](*args, **kwargs)


@lru_cache
def _works(device: int) -> bool:
    if os.environ.get(SWITCH) == "0" or find_spec("triton") is None:
        return False
    try:
        from triton import __version__

        if int(__version__.split(".")[0]) < LEAST_VERSION:
            raise RuntimeError(f"version {__version__}, {LEAST_VERSION}.0 is the least")
        from ._first_kernel import add_one

        found = torch.zeros(1, device=torch.device("cuda", device))
        launch(add_one, (1,), found)
        correct = found.item() == 1
    except Exception as error:  # of Triton, its compiler or the driver
        warnings.warn(
            f"Triton does not work on GPU {device} ({type(error).__name__}: {error}). The slower "
            "PyTorch implementations are used. Triton needs a C compiler and Python's headers.",
            stacklevel=2,
        )
        return False
    return correct
