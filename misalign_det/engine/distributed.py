"""Several processes on a machine without a GPU, where mmengine itself would require CUDA."""

import os
import subprocess
from collections.abc import Mapping

import torch
import torch.distributed as dist
from mmengine.config import Config


def prepare_processes(cfg: Config) -> None:
    """Set up gloo and DDP on the CPU if a launcher is used and there is no GPU; else do nothing.

    mmengine's `init_dist` calls `torch.cuda.set_device` with any backend, and its DDP wrapper
    passes a device id, which DDP refuses for a model on the CPU. So the process group is made here
    (mmengine uses an existing one), and the wrapper is configured without a device id.

    Args:
        cfg: changed in place. Its `launcher` is 'none', 'pytorch', 'slurm' or 'mpi'; mmengine
            handles the last one.
    """
    if cfg.launcher not in ("pytorch", "slurm") or torch.cuda.is_available():
        return
    if cfg.launcher == "slurm":
        os.environ.update(_slurm_environment(os.environ))
    cfg.merge_from_dict({"env_cfg.dist_cfg.backend": "gloo"})
    defaults = {  # mmengine's own where a config gives no wrapper
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
    }
    given = cfg.get("model_wrapper_cfg") or {}
    cfg.model_wrapper_cfg = {**defaults, **given, "device_ids": None}
    dist.init_process_group("gloo")


def finish_processes() -> None:
    """Wait for all processes, then end the process group; call it when a run has succeeded.

    Without it, a process that is still busy may abort because another one has already exited.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _slurm_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """torch's environment variables from those of srun; MASTER_ADDR and MASTER_PORT may be set.

    Args:
        environ: with SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID.

    Returns:
        RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
    """
    found = {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_NTASKS"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "MASTER_PORT": environ.get("MASTER_PORT", "29500"),
    }
    if "MASTER_ADDR" in environ:
        return found
    command = ["scontrol", "show", "hostnames", environ["SLURM_JOB_NODELIST"]]
    hosts = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {**found, "MASTER_ADDR": hosts[0]}
