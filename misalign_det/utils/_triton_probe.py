"""A small Triton kernel by which ``has_triton`` tests whether Triton works."""

import triton
import triton.language as tl


@triton.jit
def add_one(x):
    """Add 1 to the first element of ``x`` by an atomic operation.

    The atomic operations that the package's kernels use need compute capability 7.0. Without one
    here, Triton 3.0 would compile this kernel for older GPUs, but not the others.
    """
    lane = tl.arange(0, 32)
    tl.atomic_add(x + lane, 1.0, mask=lane == 0)
