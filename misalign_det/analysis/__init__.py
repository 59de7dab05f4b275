"""What probes a trained or training detector: its outputs, its assigner, its suppression."""

from .assignment.assignment_inspector_hook import AssignmentInspectorHook

__all__ = ["AssignmentInspectorHook"]
