"""A hook that saves what each process of a training has after each step, and may stop one there."""

import os
import time
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def state_file(folder, step, rank):
    return Path(folder, f"step{step}_rank{rank}.pth")


@HOOKS.register_module()
class RankStates(Hook):
    """Environment variables: RANK_STATES, the folder; HOLD, "RANK STEP" of the one that stops."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        rank, step = get_rank(), runner.iter + 1
        model = getattr(runner.model, "module", runner.model)
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        buffers = runner.optim_wrapper.optimizer.state
        state = {
            "parameters": {name: p.detach() for name, p in named.items()},
            # After the first step of SGD that is the gradient.
            "momentum": {name: buffers[p]["momentum_buffer"] for name, p in named.items()},
        }
        path = state_file(os.environ["RANK_STATES"], step, rank)
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)
        while os.environ.get("HOLD") == f"{rank} {step}":
            time.sleep(1)
