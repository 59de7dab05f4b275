"""The rank of a process before a process group exists."""

from misalign_det.utils.processes import is_first_process


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
