"""Label assignment: candidate edges, joint loss, mixture, and the assigners built on them."""

from .jla_assigner import JLAAssigner

__all__ = ["JLAAssigner"]
