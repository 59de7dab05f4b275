"""per_gt_reweight on two processes over gloo, of which one has no objects: none waits for ever."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.paths import HELPERS

SCRIPT = HELPERS / "per_gt_reweight_step.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("two")
    processes, logs = [], []
    for rank in range(2):
        environ = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        command = [sys.executable, SCRIPT, folder / "store", folder / f"{rank}.pth"]
        logs.append(folder / f"{rank}.log")
        processes.append(
            subprocess.Popen(list(map(str, command)), env=environ, stdout=logs[-1].open("w"),
                             stderr=subprocess.STDOUT)
        )  # fmt: skip
    try:
        for process, log in zip(processes, logs):
            assert process.wait(timeout=240) == 0, log.read_text()  # a hang ends after a minute
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


def test_the_total_is_that_of_both(found):
    # Four positives and one against one elsewhere: 6 before, 3 after, a factor of 2.
    torch.testing.assert_close(found[0]["both"], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(found[1]["both"], torch.tensor([2.0]))


def test_a_process_without_objects_or_locations_takes_part(found):
    torch.testing.assert_close(found[0]["one"], torch.tensor([2.5, 2.5]))
    torch.testing.assert_close(found[0]["no locations"], torch.tensor([2.5, 2.5]))
    assert found[1]["one"].shape == (0,) and found[1]["no locations"].tolist() == [0]


def test_image_by_image_nothing_is_waited_for(found):
    """The processes call assign two times and not at all."""
    torch.testing.assert_close(found[0]["image"], torch.tensor([2.5, 2.5]))
    assert found[1]["image"] is None
