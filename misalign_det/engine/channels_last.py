"""Convolutions on channels-last memory."""

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the model's weights, and with them its features, channels last in memory.

    The numbers are the same up to rounding. In bfloat16 on two CPU cores a training step of the
    small BCCD models takes 0.84 of the time: 0.37 against 0.44 s for FCOS, 0.50 against 0.59 s for
    TripleHead. In float32 it does not pay there: 0.32 against 0.27 s for the quickstart's model.

    Example::

        custom_imports = dict(imports=['misalign_det'])
        custom_hooks = [dict(type='ChannelsLastHook')]
    """

    def before_run(self, runner: Runner) -> None:
        """Lay the weights out anew; the first convolution does the same to the images."""
        runner.model.to(memory_format=torch.channels_last)
