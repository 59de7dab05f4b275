"""Analysis of a detector: outputs per location, label assignment, NMS, and the report."""

from .assignment.assignment_inspector_hook import AssignmentInspectorHook

__all__ = ["AssignmentInspectorHook"]
