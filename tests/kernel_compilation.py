"""Compile Triton kernels for GPUs that are not there, in a process without the interpreter."""

import json
import os
import subprocess
import sys

CODE = """
import json, sys
from importlib import import_module

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

for module, name, signature, constexprs in json.load(sys.stdin):
    kernel = getattr(import_module(module), name)
    names = kernel.arg_names
    kinds = {**dict(zip(names, signature)), **dict.fromkeys(constexprs, "constexpr")}
    assert list(kinds) == names, (list(kinds), names)
    for capability in (80, 90):
        source = ASTSource(fn=kernel, signature=kinds, constexprs=constexprs)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert built.asm["cubin"]
        print("compiled", name, capability)
"""


def compile_for_gpus(kernels: list[tuple[str, str, list[str], dict]]) -> int:
    """Compile each for compute capability 8.0 and 9.0; returns how many binaries there are.

    Args:
        kernels: module, name, types of the arguments ("*fp32", "i64", "fp32", ...) but for
            those that are constexpr, which come last, and the values of these.
    """
    environment = dict(os.environ, TRITON_INTERPRET="0")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], input=json.dumps(kernels), text=True,
        capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.count("compiled")
