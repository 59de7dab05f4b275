"""The rank of a process, and the number of machines, before a process group exists."""

from misalign_det.utils.processes import is_first_process, machine_count


def test_the_rank_of_torchrun_comes_before_that_of_slurm(monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    monkeypatch.setenv("SLURM_PROCID", "2")
    assert not is_first_process()
    monkeypatch.setenv("RANK", "0")  # of torchrun, started by srun
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()


def test_the_machines_of_torchrun_come_before_those_of_slurm(monkeypatch):
    for name in ("GROUP_WORLD_SIZE", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    assert machine_count() == 1
    monkeypatch.setenv("SLURM_NNODES", "4")
    assert machine_count() == 4
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert machine_count() == 2
