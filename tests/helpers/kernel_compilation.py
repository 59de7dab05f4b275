"""Compile Triton kernels for GPUs that are not there, in a process without the interpreter."""

import json
import os
import subprocess
import sys

CODE = r"""
import json, re, sys
from importlib import import_module

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernels, absent = json.load(sys.stdin)
for module, name, signature, constexprs, *options in kernels:
    kernel = getattr(import_module(module), name)
    names = kernel.arg_names
    kinds = {**dict(zip(names, signature)), **dict.fromkeys(constexprs, "constexpr")}
    assert list(kinds) == names, (list(kinds), names)
    for capability in (80, 90):
        source = ASTSource(fn=kernel, signature=kinds, constexprs=constexprs)
        target = GPUTarget("cuda", capability, 32)
        # As misalign_det.utils.triton_support launches them.
        settings = dict(dict(enable_fp_fusion=False), **dict(*options))
        built = triton.compile(source, target=target, options=settings)
        assert built.asm["cubin"]
        # Triton 3.0 to 3.2 ends the process where a range begins with what a while has computed.
        for result in re.findall(r"(%\w+)(?::\d+)? = scf.while", built.asm["ttir"]):
            assert not re.search(rf"scf.for %\w+ = {result}\b", built.asm["ttir"]), name
        assert not absent or absent not in built.asm["ptx"], (name, absent)
        print("compiled", name, capability)
"""


def compile_for_gpus(kernels: list[tuple], absent: str = "") -> int:
    """Compile each for compute capability 8.0 and 9.0; returns how many binaries there are.

    Args:
        kernels: module, name, types of the arguments ("*fp32", "i64", "fp32", ...) but for
            those that are constexpr, which come last, the values of these in a dict, and perhaps
            a dict of options of the launch, such as ``num_warps``.
        absent: an instruction that none of them may have.
    """
    environment = dict(os.environ, TRITON_INTERPRET="0")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], input=json.dumps([kernels, absent]),
        text=True, capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.count("compiled")
