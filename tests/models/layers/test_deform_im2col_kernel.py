"""The kernels compile for GPUs: in Triton's interpreter types and shapes are not checked."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deform_kernels.py"


@pytest.mark.slow
def test_every_kernel_compiles_for_two_generations():
    done = subprocess.run(
        [sys.executable, SCRIPT], env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = Counter(line for line in done.stdout.splitlines() if "sm_" in line)
    expected = {
        f"{name} {dtype} {target}": 1
        for name in ("_im2col", "_col2im")
        for dtype in ("fp16", "bf16", "fp32", "fp64")
        for target in ("sm_80", "sm_90")
    }
    assert found == expected | {"_im2col fp32 sm_90": 3, "_col2im fp32 sm_90": 6}
