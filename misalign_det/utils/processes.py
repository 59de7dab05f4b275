"""Rank of this process, and number of machines, before a process group exists."""

import os


def is_first_process() -> bool:
    """Whether the launcher gave this process rank 0; true without a launcher.

    From the environment variables of torchrun (``RANK``) or Slurm (``SLURM_PROCID``), so that it
    can be asked before ``torch.distributed`` is initialised.
    """
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


def machine_count() -> int:
    """Number of machines of the run; 1 without a launcher.

    From the environment variables of torchrun (``GROUP_WORLD_SIZE``) or Slurm (``SLURM_NNODES``).
    """
    return int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_NNODES", 1)))
