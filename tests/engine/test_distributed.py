"""Processes on the CPU, and on several machines.

That two train together is in tests/tools/test_mim.py, on two nodes in test_two_nodes.py there.
"""

from datetime import timedelta

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config

from misalign_det.engine import distributed
from misalign_det.engine.distributed import (
    collect_between_machines,
    collect_device,
    finish_processes,
    interface_towards,
    prepare_processes,
)


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


@pytest.fixture
def started(monkeypatch):
    """With a process group that is only asked for; the arguments of that."""
    asked = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_, **kw: asked.update(kw))
    monkeypatch.setattr(distributed, "interface_towards", {"10.0.0.1": "net7"}.get)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "unset")  # so that it is restored afterwards
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    return asked


def test_the_timeout_of_the_config_holds_without_a_gpu(started):
    prepare_processes(Config({"launcher": "pytorch"}))
    assert started == {}
    env_cfg = {"dist_cfg": {"backend": "nccl", "timeout": 90}}
    prepare_processes(Config({"launcher": "pytorch", "env_cfg": env_cfg}))
    assert started == {"timeout": timedelta(seconds=90)}


def test_gloo_gets_the_interface_towards_another_machine(started, monkeypatch):
    def chosen():
        prepare_processes(Config({"launcher": "pytorch"}))
        return distributed.os.environ.get("GLOO_SOCKET_IFNAME")

    assert chosen() is None  # one machine
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert chosen() == "net7"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "own")
    assert chosen() == "own"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("MASTER_ADDR", "unknown")
    assert chosen() is None


def test_a_loopback_leads_to_no_other_machine():
    assert interface_towards("127.0.0.1") is None
    assert interface_towards("no such host") is None


def test_metrics_need_no_common_folder_on_several_machines(monkeypatch):
    def evaluators(launcher):
        cfg = Config(
            {
                "launcher": launcher,
                "val_evaluator": [
                    {"type": "CocoMetric"},
                    {"type": CocoMetric, "collect_device": "cpu"},
                    {"type": "CocoMetric", "collect_dir": "/shared"},
                    {"type": "UnknownMetric"},
                ],
                "test_evaluator": {"type": "MisalignmentMetric"},
            }
        )
        collect_between_machines(cfg)
        found = [*cfg.val_evaluator, cfg.test_evaluator]
        return [metric.get("collect_device") for metric in found]

    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert evaluators("pytorch") == [None, "cpu", None, None, None] and collect_device() == "cpu"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert evaluators("none") == [None, "cpu", None, None, None]
    assert evaluators("pytorch") == ["gpu", "cpu", None, None, "gpu"] and collect_device() == "gpu"
