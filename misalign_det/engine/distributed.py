"""Several processes: without a GPU, where mmengine would require CUDA, and on several machines."""

import os
import socket
import struct
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from mmdet.registry import METRICS
from mmengine.config import Config

from ..datasets.evaluator_checks import metrics
from ..utils import argument_names, find_type
from ..utils.processes import machine_count

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of a network interface


def prepare_processes(cfg: Config) -> None:
    """Set up gloo and DDP on the CPU if a launcher is used and there is no GPU; else do nothing.

    mmengine's `init_dist` calls `torch.cuda.set_device` with any backend, and its DDP wrapper
    passes a device id, which DDP refuses for a model on the CPU. So the process group is made here
    (mmengine uses an existing one), and the wrapper is configured without a device id.

    On several machines gloo gets the network interface that leads to MASTER_ADDR, unless
    GLOO_SOCKET_IFNAME names one. By itself it takes the address of the machine's own name, which
    many Linux systems set to 127.0.1.1.

    Args:
        cfg: changed in place. Its `launcher` is 'none', 'pytorch', 'slurm' or 'mpi'; mmengine
            handles the last one. `env_cfg.dist_cfg.timeout` is in seconds.
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
    options: dict[str, Any] = {}
    if seconds := cfg.env_cfg.dist_cfg.get("timeout"):
        options["timeout"] = timedelta(seconds=seconds)
    if machine_count() > 1 and "GLOO_SOCKET_IFNAME" not in os.environ:
        if name := interface_towards(os.environ["MASTER_ADDR"]):
            os.environ["GLOO_SOCKET_IFNAME"] = name
    dist.init_process_group("gloo", **options)


def interface_towards(host: str) -> str | None:
    """Name of the network interface that leads to a host, or has its address; Linux and IPv4.

    Args:
        host: name or address.

    Returns:
        The name; None if it cannot be found, or is only the loopback's.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # of a datagram socket: it looks up the route, sends nothing
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode())
                try:
                    found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24]
                except OSError:  # it has no such address
                    continue
                if socket.inet_ntoa(found) == own and not own.startswith("127."):
                    return name
    except (OSError, AttributeError):
        pass
    return None


def collect_device() -> str:
    """How metrics collect the results of all processes, as mmengine's ``collect_device``.

    ``'cpu'`` is through files in the current folder, ``'gpu'`` through the processes' connection,
    also on the CPU: several machines may have no folder in common.
    """
    return "gpu" if machine_count() > 1 else "cpu"


def collect_between_machines(cfg: Config) -> None:
    """Let metrics collect results through the processes' connection on several machines.

    A metric with ``collect_device`` or ``collect_dir`` stays as it is.

    Args:
        cfg: changed in place.
    """
    if cfg.get("launcher", "none") == "none" or machine_count() == 1:
        return
    for key in ("val_evaluator", "test_evaluator"):
        for _, metric, _ in metrics(cfg.get(key), key):
            kind = find_type(metric.get("type"), METRICS)
            known = kind is not None and "collect_device" in argument_names(kind)[0]
            if known and not metric.get("collect_dir"):
                metric.setdefault("collect_device", collect_device())  # type: ignore[attr-defined]


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
