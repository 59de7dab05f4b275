"""The kernel by which ``has_triton`` finds out whether Triton works."""

import triton
import triton.language as tl


@triton.jit
def add_one(x):
    """Add 1 to the first number of ``x``."""
    tl.store(x, tl.load(x) + 1)
