"""Which process of a run this is, before a process group exists."""

import os


def is_first_process():
    """Whether this is the first process of a run, before they have found one another."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0
