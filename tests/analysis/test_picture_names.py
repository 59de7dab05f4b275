"""Assignments are drawn on any pixels, and no two pictures get one name."""

import numpy as np
import pytest
import torch

from misalign_det.analysis.assignment.assignment_figure import (
    draw_assignment,
    draw_positives_and_negatives,
)
from misalign_det.analysis.assignment.assignment_statistics import ImageAssignment
from misalign_det.analysis.palette import PURPLE, rgb
from misalign_det.analysis.picture_names import distinct_names, numbered_apart


@pytest.mark.parametrize("image", [np.full((40, 60, 3), 0.5), np.full((40, 60), 128.0),
                                   np.full((40, 60, 5), 128, np.uint8)])  # fmt: skip
def test_assignments_are_drawn_on_any_pixels(image):
    assignment = ImageAssignment(
        torch.tensor([[30.0, 20]]), torch.tensor([8.0]), torch.tensor([[10.0, 10, 50, 30]]),
        torch.tensor([0]), torch.tensor([0]), torch.tensor([0]),
    )  # fmt: skip
    drawn = draw_assignment(image, assignment, min_width=60)
    assert drawn.shape[1:] == (60, 3) and drawn[0, 0].tolist() == [128] * 3
    assert (drawn[40:] > 200).mean() > 0.5  # a band of text on white
    assert (drawn[20, 30] != 128).any() and (drawn[10, 30] != 128).any()
    boxes = draw_positives_and_negatives(
        image, np.array([[10.0, 10, 50, 30]]), np.array([0]), np.array([], int))  # fmt: skip
    assert boxes.shape == (320, 480, 3) and boxes[80, 240].tolist() == list(rgb(PURPLE))


def test_names():
    assert distinct_names([]) == []
    assert distinct_names(["d/a.jpg", "d/b.jpg"]) == ["a", "b"]
    assert distinct_names(["/d/cam0/0.png", "/d/cam1/0.png", "/d/cam1/1.png"]) == [
        "cam0_0", "cam1_0", "cam1_1"]  # fmt: skip
    assert distinct_names(["/d/0.jpg", "/d/0.png", "/d/1.png"]) == ["0_jpg", "0_png", "1"]
    # Separators and the mark of another folder meet.
    met = distinct_names(["/d/a_b/c.jpg", "/d/a/b_c.jpg", "/d/a_b_c.png"])
    assert len(set(met)) == 3
    assert len(set(distinct_names(["/d/x.jpg"] * 3))) == 3


def test_repetitions_are_numbered():
    assert numbered_apart(["a", "b", "a", "a"]) == ["a", "b", "a_2", "a_3"]
    assert numbered_apart(["a", "a", "a_2"]) == ["a", "a_3", "a_2"]
