"""What trainings on the simulated device share."""

from dataclasses import replace

import pytest

from misalign_det.models.layers import deform_conv
from misalign_det.models.task_modules.assigners.batch_assigner import BatchAssigner
from misalign_det.utils import triton_support


def moved(instance, device):
    """A dataclass with its tensors on another device."""
    tensors = {name: part for name, part in vars(instance).items() if hasattr(part, "device")}
    return replace(instance, **{name: part.to(device) for name, part in tensors.items()})


@pytest.fixture
def quick_steps(monkeypatch, simulated_cuda):
    """Assignment runs on the CPU and samples without Triton: neither depends on autocast."""
    if simulated_cuda is not None:
        monkeypatch.setattr(triton_support, "_works", lambda device: False)
        assign_batch = BatchAssigner.assign_batch

        def on_the_cpu(self, points, strides, logits, bboxes, gts):
            args = (part.cpu() for part in (points, strides, logits, bboxes))
            return moved(assign_batch(self, *args, moved(gts, "cpu")), points.device)

        monkeypatch.setattr(BatchAssigner, "assign_batch", on_the_cpu)
        # mmcv's op on the CPU takes longer than all convolutions.
        monkeypatch.setattr(deform_conv, "MAX_COLUMNS", 0)
