"""The kernel by which ``has_triton`` finds out whether Triton works."""

import triton
import triton.language as tl


@triton.jit
def add_one(x):
    """Add 1 to the first number of ``x``, by an atomic operation.

    Those that the package uses came with compute capability 7.0. Without one, Triton 3.0 compiles a
    kernel for older GPUs, on which it cannot compile the others.
    """
    lane = tl.arange(0, 32)
    tl.atomic_add(x + lane, 1.0, mask=lane == 0)
