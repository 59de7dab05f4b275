"""Compiles the deformable convolution's Triton kernels, without a GPU, and prints their names.

Run by a test in a process of its own: with TRITON_INTERPRET=1 there is nothing to compile.
"""

import itertools

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from misalign_det.models.layers import deform_im2col_kernel as kernels

DTYPES = {"fp16": "fp32", "bf16": "fp32", "fp32": "fp32", "fp64": "fp64"}  # features, offsets


def compiled(kernel, dtype: str, capability: int, **constants) -> str:
    """Name of the kernel, of which there is a cubin now."""
    constants |= dict(WIDTH=32, SAMPLES=8, CHANNELS=16)
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in kernels.SIZES:
            signature[name] = "i32"
        elif name == "locations":
            signature[name] = "*i64"
        else:
            signature[name] = "*" + (dtype if name in ("x", "samples", "grad") else DTYPES[dtype])
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert len(binary.asm["cubin"]) > 1000
    return f"{kernel.__name__} {dtype} sm_{capability}"


def main() -> None:
    im2col = [dict(MODULATED=False, CHOSEN=True)]
    im2col += [dict(MODULATED=modulated, CHOSEN=False) for modulated in (False, True)]
    col2im = [
        dict(MODULATED=modulated, TO_X=to_x, TO_OFFSET=to_offset)
        for modulated, to_x, to_offset in itertools.product((False, True), repeat=3)
        if to_x or to_offset
    ]
    for constants in im2col:
        print(compiled(kernels._im2col, "fp32", 90, **constants))
    for constants in col2im:
        print(compiled(kernels._col2im, "fp32", 90, **constants))
    for dtype, capability in itertools.product(DTYPES, (80, 90)):
        if (dtype, capability) != ("fp32", 90):
            print(compiled(kernels._im2col, dtype, capability, **im2col[-1]))
            print(compiled(kernels._col2im, dtype, capability, **col2im[-1]))


if __name__ == "__main__":
    main()
