"""Compile Triton kernels for GPUs on a machine without one, in a process of its own.

Triton's interpreter, in which the tests run the kernels, is off there.
"""

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
        # The options of misalign_det.utils.triton_support.launch.
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
    """Compile kernels for the compute capabilities 8.0 and 9.0.

    Args:
        kernels: per kernel its module, its name, the types of its arguments (``"*fp32"``,
            ``"i64"``, ``"fp32"``, ...) without the ``constexpr`` ones, which come last, a dict of
            the latter's values, and optionally a dict of launch options such as ``num_warps``.
        absent: a PTX instruction that no kernel may contain.

    Returns:
        Number of binaries.
    """
    environment = dict(os.environ, TRITON_INTERPRET="0")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], input=json.dumps([kernels, absent]),
        text=True, capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.count("compiled")
