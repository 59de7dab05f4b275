"""Running: what is done around a model while it is trained, tested, saved and loaded."""

from . import loading, mixed_precision, safe_checkpoint

__all__ = ["loading", "mixed_precision", "safe_checkpoint"]
