"""What runs in training beside the model: hooks, an optimizer wrapper, checkpoints."""

from .hooks import AtomicCheckpointHook, ChannelsLastHook, EpochSeedHook, RecordInvalidLossHook
from .optim_wrapper import BFloat16OptimWrapper

__all__ = [
    "BFloat16OptimWrapper",
    "ChannelsLastHook",
    "EpochSeedHook",
    "RecordInvalidLossHook",
    "AtomicCheckpointHook",
]
