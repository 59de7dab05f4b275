"""Hooks that mmengine's Runner calls while a detector trains."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .channels_last_hook import ChannelsLastHook
from .epoch_seed_hook import EpochSeedHook
from .record_invalid_loss_hook import RecordInvalidLossHook

__all__ = ["AtomicCheckpointHook", "ChannelsLastHook", "EpochSeedHook", "RecordInvalidLossHook"]
