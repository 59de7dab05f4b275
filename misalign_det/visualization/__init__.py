"""Figures of the papers: loss maps and receptive fields of one-stage detectors."""

from .dense_outputs import DenseOutputs, dense_head, dense_outputs, training_positives
from .loss_maps import LevelLosses, draw_loss_maps, losses_towards
from .receptive_field import ReceptiveField, draw_receptive_fields, receptive_fields

__all__ = [
    "DenseOutputs",
    "LevelLosses",
    "ReceptiveField",
    "dense_head",
    "dense_outputs",
    "draw_loss_maps",
    "draw_receptive_fields",
    "losses_towards",
    "receptive_fields",
    "training_positives",
]
