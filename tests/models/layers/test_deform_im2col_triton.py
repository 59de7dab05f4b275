"""The kernels compile for GPUs: Triton's interpreter does not check types and shapes."""

import pytest
from helpers.kernel_compilation import compile_for_gpus

from misalign_det.models.layers import deform_im2col_triton as kernels

WIDE = {"fp16": "fp32", "bf16": "fp32", "fp32": "fp32", "fp64": "fp64"}  # dtypes of offsets
BLOCKS = dict(SAMPLES=8, CHANNELS=16)


def case(name, dtype, **constants):
    """Of a kernel for features of ``dtype``, two blocks of channels wide."""
    types = {"x": dtype, "samples": dtype, "grad": dtype, "locations": "i64"}
    constants = dict(WIDTH=32, **constants, **BLOCKS)
    names = [arg for arg in getattr(kernels, name).arg_names if arg not in constants]
    signature = [
        "i32" if arg in kernels.SIZES else "*" + types.get(arg, WIDE[dtype]) for arg in names
    ]
    return kernels.__name__, name, signature, constants


@pytest.mark.slow
def test_every_kernel_compiles():
    """All constants in float32; the largest kernels in every dtype."""
    im2col = [dict(MODULATED=False, CHOSEN=True)]
    im2col += [dict(MODULATED=modulated, CHOSEN=False) for modulated in (False, True)]
    col2im = [
        dict(MODULATED=modulated, TO_X=to_x, TO_OFFSET=to_offset)
        for modulated in (False, True)
        for to_x, to_offset in ((True, False), (False, True), (True, True))
    ]
    cases = [case("_im2col", "fp32", **constants) for constants in im2col]
    cases += [case("_col2im", "fp32", **constants) for constants in col2im]
    for dtype in ("fp16", "bf16", "fp64"):
        cases += [case("_im2col", dtype, **im2col[-1]), case("_col2im", dtype, **col2im[-1])]
    assert compile_for_gpus(cases) == 2 * len(cases) == 30
