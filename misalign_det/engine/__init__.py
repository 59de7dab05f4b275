"""Running: what is done around a model while it is trained, tested, saved and loaded."""

from . import (
    assignment_inspector,
    channels_last,
    epoch_seed,
    finite_loss,
    loading,
    mixed_precision,
    safe_checkpoint,
)

__all__ = [
    "assignment_inspector",
    "channels_last",
    "epoch_seed",
    "finite_loss",
    "loading",
    "mixed_precision",
    "safe_checkpoint",
]
