"""``new_tensor([number])`` in mmdet's functions does not synchronise host and device."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps

from misalign_det.utils import new_tensor_without_sync

LOSSES = ["IoULoss", "GIoULoss", "DIoULoss", "CIoULoss", "EIoULoss", "SIoULoss"]


def boxes(device):
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 7, 2, generator=generator) * 20 + 1
    one = torch.cat([corner, corner + size], dim=1)
    return one.to(device), one.roll(1, dims=0).to(device)


@pytest.mark.cuda
@pytest.mark.parametrize("name", LOSSES)
def test_box_losses_have_the_same_values_without_a_host_sync(name, simulated_cuda):
    loss = MODELS.build(dict(type=f"mmdet.{name}"))
    expected = loss(*boxes("cpu"), reduction_override="none")
    pair = boxes("cuda")
    if simulated_cuda is None:
        with new_tensor_without_sync(pair[0]):
            found = loss(*pair, reduction_override="none")
    else:
        with simulated_cuda.count() as counts, new_tensor_without_sync(pair[0]):
            found = loss(*pair, reduction_override="none")
        assert counts.num_syncs == 0, counts.table()
    torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.cuda
def test_other_calls_are_left_alone():
    x = torch.zeros(2, device="cuda", dtype=torch.float64)
    with new_tensor_without_sync(x):
        assert x.new_tensor([0.5]).dtype == torch.float64 and x.new_tensor([0.5]).tolist() == [0.5]
        assert x.new_tensor([3]).shape == (1,)
        assert x.new_tensor([1.0, 2.0]).tolist() == [1, 2] and x.new_tensor(4.0).shape == ()
        assert x.new_tensor([5], dtype=torch.long).dtype == torch.long


def test_on_the_cpu_nothing_is_intercepted():
    one, other = boxes("cpu")
    with new_tensor_without_sync(one):
        assert torch.overrides._get_current_function_mode_stack() == []
        bbox_overlaps(one, other, is_aligned=True)


@pytest.mark.cuda
def test_nothing_is_intercepted_while_the_compiler_traces(monkeypatch):
    x = torch.zeros(1, device="cuda")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True, raising=False)
    with new_tensor_without_sync(x):
        assert torch.overrides._get_current_function_mode_stack() == []
