"""What trainings on the simulated device share."""

import pytest

from misalign_det.models.layers import deform_conv
from misalign_det.models.task_modules.assigners import ambiguity, gaussian_mixture
from misalign_det.models.utils import bipartite_matching
from misalign_det.utils import triton_support


@pytest.fixture
def quick_steps(monkeypatch, simulated_cuda):
    """Assignment and samples as on the CPU: they know nothing of autocast."""
    if simulated_cuda is not None:
        monkeypatch.setattr(triton_support, "_works", lambda device: False)
        for module in (ambiguity, bipartite_matching, gaussian_mixture):
            monkeypatch.setattr(module, "may_look", lambda values: True)
        # mmcv's op on the CPU takes longer than all convolutions.
        monkeypatch.setattr(deform_conv, "MAX_COLUMNS", 0)
