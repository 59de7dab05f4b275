"""Two processes over gloo take the step that one takes on the joint batch."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.distributed_step import CASES, COUNTS, FROZEN
from helpers.paths import HELPERS

SCRIPT = HELPERS / "distributed_step.py"


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    return take_steps(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return take_steps(2, tmp_path_factory.mktemp("two"))


def take_steps(world, folder):
    """(head, counts) -> losses, averaged over the processes, and gradients."""
    processes, logs = [], []
    path = os.pathsep.join([str(HELPERS.parent), os.environ.get("PYTHONPATH", "")])
    for rank in range(world):
        environ = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "PYTHONPATH": path}
        command = [sys.executable, SCRIPT, folder / "store", folder / "out.pth"]
        logs.append(folder / f"{rank}.log")
        processes.append(
            subprocess.Popen(list(map(str, command)), env=environ, stdout=logs[-1].open("w"),
                             stderr=subprocess.STDOUT)
        )  # fmt: skip
    for process, log in zip(processes, logs):
        assert process.wait(timeout=1200) == 0, log.read_text()  # a hang ends after ten minutes
    return torch.load(folder / "out.pth")


@pytest.mark.slow
@pytest.mark.parametrize("counts", COUNTS, ids=["crowded", "one rank without GT"])
@pytest.mark.parametrize("head", [*CASES, *FROZEN])
def test_losses_and_gradients_of_the_joint_batch(joint, shared, head, counts):
    (losses, gradients), (expected, wanted) = shared[head, counts], joint[head, counts]
    assert losses.keys() == expected.keys() and expected["loss"] > 0
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert any(gradient.abs().max() > 0 for gradient in wanted.values())
    for name, value in wanted.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(
            gradients[name], value, rtol=1e-3, atol=1e-4 * scale + 1e-7, msg=name
        )


@pytest.mark.slow
@pytest.mark.parametrize("counts", COUNTS, ids=["crowded", "one rank without GT"])
def test_eq_2_keeps_the_loss_that_the_processes_average(shared, counts):
    """Also where a head divides by the positives of its own process, as mmdet's RetinaHead."""
    (mine, gradients), (theirs, others) = (
        shared[head, counts] for head in ("DCRetinaHead", "RetinaHead")
    )
    torch.testing.assert_close(mine["loss_cls"], theirs["loss_cls"], rtol=1e-4, atol=1e-6)
    assert mine["loss_bbox"] == theirs["loss_bbox"]
    name = "bbox_head.retina_cls.weight"
    assert not torch.allclose(gradients[name], others[name], rtol=1e-3)
