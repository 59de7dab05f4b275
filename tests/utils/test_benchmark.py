"""Rows and calls of a profile that the benchmarks count."""

from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from misalign_det.utils.benchmark import count_calls, operator_shares, shares_of_rows

# Names as torch's profiler gives them on an H100.
OWN = [
    "[memory]", "ProfilerStep#3", "cudaDeviceSynchronize", "Activity Buffer Request",
    "Command Buffer Full", "Lazy Function Loading", "Runtime Triggered Module Loading",
    "Buffer Flush", "Instrumentation", "Unrecognized", "cudaLaunchKernel", "cuLaunchKernelEx",
    "cudaStreamSynchronize", "cudaMemcpyAsync",
]  # fmt: skip


def row(key, cpu=0.0, gpu=0.0, on_gpu=False, named=False):
    return SimpleNamespace(
        key=key, self_cpu_time_total=cpu, self_device_time_total=gpu, is_user_annotation=named,
        device_type=DeviceType.CUDA if on_gpu else DeviceType.CPU,
    )  # fmt: skip


def test_shares_on_the_cpu_leave_the_profiler_out():
    rows = [row(name, cpu=1000.0) for name in OWN]
    rows += [row("aten::add", cpu=1.0), row("aten::convolution_backward", cpu=3.0)]
    rows += [row("UnbindBackward0", cpu=0.0), row("aten::_resize_output_", cpu=0.0)]
    shares = shares_of_rows(rows, cuda=False)
    assert shares[:2] == [("aten::convolution_backward", 0.75), ("aten::add", 0.25)]
    assert {name for name, _ in shares[2:]} == {"UnbindBackward0", "aten::_resize_output_"}


def test_shares_on_a_gpu_are_those_of_kernels():
    """An operator's row repeats its kernels' time, and so does a range that someone named."""
    rows = [row(name, cpu=9.0, gpu=1000.0, on_gpu=True) for name in OWN[:10]]
    rows += [
        row("aten::mm", cpu=5.0, gpu=60.0),
        row("cutlass_80_gemm", gpu=60.0, on_gpu=True),
        row("void at::native::add<4>(int)", gpu=30.0, on_gpu=True),
        row("Memcpy DtoH (Device -> Pinned)", gpu=10.0, on_gpu=True),
        row("Optimizer.step#SGD.step", gpu=100.0, on_gpu=True, named=True),
    ]
    assert shares_of_rows(rows, cuda=True) == [
        ("cutlass_80_gemm", 0.6),
        ("add<4>(int)", 0.3),
        ("Memcpy DtoH (Device -> Pinned)", 0.1),
    ]


def test_nothing_on_the_gpu_has_no_shares():
    assert shares_of_rows([row("aten::add", cpu=1.0)], cuda=True) == []


def test_operators_of_a_call(capfd):
    x = torch.ones(50, 50)
    shares = operator_shares(lambda: x @ x + 1)
    assert {"aten::mm", "aten::add"} <= {name for name, _ in shares}
    assert all(name.startswith("aten::") for name, _ in shares)
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert capfd.readouterr().err == ""  # no messages of the profiler


def test_launches_and_syncs_of_runtime_calls():
    launches = {
        "cudaLaunchKernel": 100, "cudaLaunchKernelExC": 20, "cuLaunchKernel": 3,
        "cuLaunchKernelEx": 4, "cudaLaunchCooperativeKernel": 5,
    }  # fmt: skip
    syncs = {"cudaStreamSynchronize": 2, "cudaEventSynchronize": 10, "cudaMemcpy": 30}
    neither = {
        "cudaDeviceSynchronize": 1000, "cudaMemcpyAsync": 1000, "cudaMemsetAsync": 1000,
        "cudaStreamWaitEvent": 1000, "cudaEventRecord": 1000, "cudaMalloc": 1000, "aten::add": 1000,
        "cudaLaunchHostFunc": 1000, "cuLaunchHostFunc": 1000, "Memcpy DtoH": 1000,
    }  # fmt: skip
    assert count_calls({**launches, **syncs, **neither}) == (132, 42)
