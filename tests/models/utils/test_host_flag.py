"""HostFlag is read without host-device synchronisation, and on the CPU it is up to date."""

import pytest
import torch

from misalign_det.models.utils.host_flag import HostFlag


def test_on_the_cpu_the_last_value_is_read():
    flag = HostFlag(torch.zeros(1))
    assert bool(flag) is True  # until it is set
    for value in (False, True, False):
        flag.set(torch.tensor(value))
        assert bool(flag) is value


@pytest.mark.cuda
def test_on_a_gpu_it_is_read_without_synchronisation(simulated_cuda):
    flag, values = HostFlag(torch.zeros(1, device="cuda")), torch.tensor([True, False]).to("cuda")
    assert bool(flag) is True
    if simulated_cuda is not None:
        with simulated_cuda.count() as counts:
            for value in values:
                flag.set(value)
                bool(flag)
        assert counts.num_syncs == 0
        with simulated_cuda.count() as counts:
            bool(values[1])
        assert counts.num_syncs == 1  # without the flag
    flag.set(values[1])
    torch.cuda.synchronize()
    assert bool(flag) is False
