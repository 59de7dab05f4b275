"""Running: what is done around a model while it is trained, tested, saved and loaded."""

from . import loading, safe_checkpoint

__all__ = ["loading", "safe_checkpoint"]
