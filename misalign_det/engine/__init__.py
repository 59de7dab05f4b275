"""What a training run uses besides the model: hooks, an optimizer wrapper, checkpoints."""

from .hooks import AtomicCheckpointHook, ChannelsLastHook, EpochSeedHook, RecordInvalidLossHook
from .named_weights import load_from_torchvision
from .optim_wrapper import BFloat16OptimWrapper
from .package_weights import load_from_package

__all__ = [
    "AtomicCheckpointHook",
    "BFloat16OptimWrapper",
    "ChannelsLastHook",
    "EpochSeedHook",
    "RecordInvalidLossHook",
    "load_from_package",
    "load_from_torchvision",
]
