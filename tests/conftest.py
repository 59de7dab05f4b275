"""What every test starts from: mmdet's modules registered, its scope the default one."""

import itertools
import os
from importlib import metadata

import pytest
import torch
from launch_counts import can_count
from mmdet.utils import register_all_modules
from mmengine.logging import MessageHub

from misalign_det.utils.triton_support import MIN_MAJOR_VERSION

if not torch.cuda.is_available():  # before the first import of triton: its kernels run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")
# What cuBLAS needs to be deterministic; it is read when it starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
register_all_modules()
torch.set_num_threads(min(2, torch.get_num_threads()))
numbers = itertools.count()
KERNELS = {"kernel_device", "launched"}  # fixtures of tests that launch one


def pytest_report_header():
    """Say what the tests marked cuda run on."""
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "cuda: simulated on the CPU (tools/benchmarks/simulated_cuda)"


def pytest_collection_modifyitems(items):
    """Tests that need a GPU, a newer Triton or a newer torch say why they do not run."""
    kernels = kernels_run()
    for item in items:
        if item.get_closest_marker("cuda") and not can_count():
            item.add_marker(pytest.mark.skip(reason="the simulated CUDA device needs torch 2.2"))
        if not torch.cuda.is_available() and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        of_kernels = item.path.name.endswith("_triton.py") or KERNELS & set(item.fixturenames)
        if of_kernels and not kernels:
            item.add_marker(pytest.mark.skip(reason="the kernels need Triton 3"))


def kernels_run():
    """Whether the installed Triton can run the kernels, in its interpreter at least."""
    try:
        return int(metadata.version("triton").split(".")[0]) >= MIN_MAJOR_VERSION
    except metadata.PackageNotFoundError:
        return False


def pytest_report_teststatus(report):
    """Without a GPU, the summary counts tests marked cuda as simulated."""
    if report.when == "call" and report.passed and "cuda" in report.keywords:
        if not torch.cuda.is_available():
            return "passed on the simulated CUDA device", ".", "PASSED (simulated CUDA)"
    return None


@pytest.fixture(autouse=True)
def simulated_cuda(request):
    """Without a GPU, a test marked cuda runs on the simulated device."""
    if not request.node.get_closest_marker("cuda") or torch.cuda.is_available():
        yield None
    else:
        from simulated_cuda import SimulatedCuda

        with SimulatedCuda() as device:
            yield device


@pytest.fixture(autouse=True)
def full_precision(simulated_cuda, request, monkeypatch):
    """Tests marked cuda compare with the CPU: convolutions use TF32 only where a test says so."""
    if request.node.get_closest_marker("cuda") and "tf32" not in request.fixturenames:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True)
def mmdet_scope():
    """A test that ran a whole runner may have left another default scope behind."""
    register_all_modules(init_default_scope=True)


@pytest.fixture(autouse=True)
def no_training_under_way():
    """A test that ran a whole runner may have left its step counters behind: JLA reads them."""
    MessageHub.get_instance(f"test_{next(numbers)}")
