"""What a training run uses besides the model: hooks, an optimizer wrapper, checkpoints."""

from .hooks import AtomicCheckpointHook, ChannelsLastHook, EpochSeedHook, RecordInvalidLossHook
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    "AtomicCheckpointHook",
    "BFloat16OptimWrapper",
    "ChannelsLastHook",
    "EpochSeedHook",
    "RecordInvalidLossHook",
]
