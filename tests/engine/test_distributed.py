"""Processes on the CPU. That two of them train together is in tests/tools/test_mim.py."""

import torch
from mmengine.config import Config

from misalign_det.engine import distributed
from misalign_det.engine.distributed import finish_processes, prepare_processes


def test_nothing_is_done_without_launcher_or_with_a_gpu(monkeypatch):
    cfg = Config({"launcher": "none"})
    prepare_processes(cfg)
    assert cfg.to_dict() == {"launcher": "none"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = Config({"launcher": "pytorch"})
    prepare_processes(cfg)
    assert cfg.to_dict() == {"launcher": "pytorch"}


def test_gloo_without_gpu_from_slurms_variables(monkeypatch, tmp_path):
    """One process of one; srun's variables become torch's, and DDP gets no device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in {
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "unset")  # so that they are restored afterwards
    cfg = Config(
        {
            "launcher": "slurm",
            "find_unused_parameters": True,
            "env_cfg": {"dist_cfg": {"backend": "nccl"}},
        }
    )
    prepare_processes(cfg)
    try:
        assert torch.distributed.get_backend() == "gloo"
        assert cfg.env_cfg.dist_cfg.backend == "gloo"
        assert cfg.model_wrapper_cfg.to_dict() == {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": True,
            "device_ids": None,
        }
    finally:
        finish_processes()
    assert not torch.distributed.is_initialized()
    finish_processes()  # nothing to end: nothing happens


def test_the_first_node_is_the_master(monkeypatch):
    def run(command, **_):
        assert command == ["scontrol", "show", "hostnames", "node[3-4]"]
        return type("Done", (), {"stdout": "node3\nnode4\n"})

    monkeypatch.setattr(distributed.subprocess, "run", run)
    assert distributed._slurm_environment(
        {
            "SLURM_PROCID": "5",
            "SLURM_NTASKS": "8",
            "SLURM_LOCALID": "1",
            "SLURM_JOB_NODELIST": "node[3-4]",
        }
    ) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_PORT": "29500",
        "MASTER_ADDR": "node3",
    }


def test_address_and_port_that_are_set_stay():
    found = distributed._slurm_environment(
        {
            "SLURM_PROCID": "5",
            "SLURM_NTASKS": "8",
            "SLURM_LOCALID": "1",
            "MASTER_ADDR": "node9",
            "MASTER_PORT": "4000",
        }
    )
    assert found["MASTER_PORT"] == "4000"
    assert "MASTER_ADDR" not in found  # and nobody asks scontrol
