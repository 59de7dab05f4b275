"""Small checkpoints with everything that mmengine's Runner saves."""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn


def small():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def save(path, model=None, **meta):
    """A checkpoint with everything that mmengine's Runner puts into one."""
    buffer = HistoryBuffer(np.array([0.5, 0.25]), np.array([1, 1]))
    buffer.update(0.125)
    torch.save(
        {
            "state_dict": (model or small()).state_dict(),
            "meta": {
                "epoch": 1,
                "iter": np.int64(4),
                "seed": 0,
                "dataset_meta": {"classes": ("a", "b"), "palette": [(1, 2, 3)]},
                **meta,
            },
            "message_hub": {
                "log_scalars": {"loss": buffer},
                "runtime_info": {
                    "lr": np.float64(0.01),
                    "flag": np.bool_(True),
                    "array": np.arange(3, dtype=np.uint8),
                },
                "resumed_keys": {"loss": True},
            },
            "optimizer": torch.optim.SGD(small().parameters(), lr=0.1).state_dict(),
        },
        path,
    )
    return str(path)
