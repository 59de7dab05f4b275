"""Where Triton kernels run, and what happens where they cannot."""

import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch

from misalign_det.utils import has_triton, launch, triton_support


@pytest.fixture(autouse=True)
def nothing_known():
    triton_support._works.cache_clear()
    yield
    triton_support._works.cache_clear()


def gpu_tensor(index=0):
    return SimpleNamespace(is_cuda=True, get_device=lambda: index, dtype=torch.float32)


def test_never_on_the_cpu():
    assert has_triton(torch.zeros(1)) is False


@pytest.mark.cuda
def test_on_a_gpu_after_one_kernel(simulated_cuda):
    x = torch.zeros(3, device="cuda")
    assert has_triton(x) is True
    if simulated_cuda is not None:
        with simulated_cuda.count() as counts:
            assert has_triton(x)
        assert counts.num_launches == counts.num_syncs == 0


@pytest.mark.cuda
@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_bfloat16_needs_ampere(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    x = torch.zeros(1, device="cuda")
    assert has_triton(x) and has_triton(x.half()) and has_triton(x.bfloat16(), torch.float32)
    assert has_triton(x.bfloat16()) is has_triton(x, torch.bfloat16) is expected


def test_not_where_triton_is_missing(monkeypatch):
    monkeypatch.setattr(triton_support, "find_spec", lambda name: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert has_triton(gpu_tensor()) is False


@pytest.mark.cuda
@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), ("", True)])
def test_a_variable_switches_it_off(monkeypatch, value, expected):
    monkeypatch.setenv("MISALIGN_DET_TRITON", value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert has_triton(torch.zeros(1, device="cuda")) is expected


def test_where_the_test_kernel_fails_one_warning_says_why(monkeypatch):
    def fail(*args):
        raise OSError("no C compiler")

    monkeypatch.setattr(triton_support, "_start", fail)
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: torch.empty(1))
    with pytest.warns(UserWarning, match="GPU 3 .OSError: no C compiler") as caught:
        assert not has_triton(gpu_tensor(3)) and not has_triton(gpu_tensor(3))
    assert len(caught) == 1


def test_not_where_the_test_kernel_computes_something_else(monkeypatch):
    monkeypatch.setattr(triton_support, "_start", lambda *args: None)
    real = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: real(1))
    assert has_triton(gpu_tensor()) is False


def test_a_broken_installation_is_like_a_missing_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "misalign_det.utils._triton_probe", ModuleType("broken"))
    with pytest.warns(UserWarning, match="ImportError"):
        assert not has_triton(gpu_tensor())


def test_not_with_a_triton_that_has_not_run_the_kernels(monkeypatch):
    import triton

    monkeypatch.setattr(triton, "__version__", "2.3.1")
    monkeypatch.setattr(triton_support, "_start", lambda *args: 1 / 0)
    with pytest.warns(UserWarning, match="RuntimeError: version 2.3.1, but 3.0 or later is needed"):
        assert not has_triton(gpu_tensor())


def test_launch_hands_everything_on_and_an_empty_grid_starts_nothing(monkeypatch):
    started = []
    monkeypatch.setattr(triton_support, "_start", lambda *args: started.append(args))
    x = torch.zeros(2)
    launch("kernel", (0, 4), x, 1, WIDTH=2)
    assert not started
    launch("kernel", (3, 4), x, 1, WIDTH=2)
    assert started == [("kernel", (3, 4), (x, 1), dict(WIDTH=2))]


def test_a_kernel_starts_on_the_device_of_its_tensors_without_fused_operations(monkeypatch):
    entered, started = [], []

    class Device:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            entered.append(self.index)

        def __exit__(self, *error):
            pass

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **kwargs: started.append((grid, kwargs))

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(triton_support, "Tensor", SimpleNamespace)
    launch(Kernel(), (2,), 5, gpu_tensor(1), WIDTH=2)
    launch(Kernel(), (2,), gpu_tensor(1), enable_fp_fusion=True)
    assert entered == [1, 1]
    assert started == [((2,), dict(WIDTH=2, enable_fp_fusion=False)),
                       ((2,), dict(enable_fp_fusion=True))]  # fmt: skip
