"""Pixels of any kind become pictures, and no two pictures one name."""

import numpy as np
import pytest
import torch

from misalign_det.evaluation.assignment_statistics import ImageAssignment
from misalign_det.visualization.assignment import draw_assignment, draw_positives_and_negatives
from misalign_det.visualization.pictures import as_picture, distinct_names, numbered_apart

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


@pytest.mark.parametrize(
    "image, expected",
    [
        (RGB, RGB),
        (RGB.astype(np.float32), RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float16).astype(np.float64), None),
        (RGB.astype(np.int64), RGB),
        (RGB[..., 0], RGB[..., :1].repeat(3, -1)),
        (RGB[..., :1], RGB[..., :1].repeat(3, -1)),
        (RGB[..., :2], RGB[..., :1].repeat(3, -1)),
        (np.concatenate([RGB, RGB // 2], -1), RGB),
        (RGB[:, ::-1], RGB[:, ::-1]),
    ],
)
def test_any_pixels(image, expected):
    found = as_picture(image)
    assert found.dtype == np.uint8 and found.shape == (2, 3, 3) and found.flags.c_contiguous
    if expected is None:
        assert np.abs(found.astype(int) - RGB).max() <= 1
    else:
        assert np.array_equal(found, expected)


def test_pixels_out_of_range_are_stretched():
    normalised = np.array([[[-2.0], [0.0], [2.0]]])
    assert as_picture(normalised)[0, :, 0].tolist() == [0, 128, 255]
    deep = np.array([[0, 30000, 60000]], np.uint16)
    assert as_picture(deep)[0, :, 0].tolist() == [0, 128, 255]
    # Whole numbers are 0 to 255 even where none exceeds 1.
    assert as_picture(np.array([[0, 1]], np.int32)).max() == 1
    assert as_picture(np.array([[0.5, np.nan]]))[..., 0].tolist() == [[128, 0]]
    assert as_picture(np.full((2, 2), 300.0)).max() == 0


@pytest.mark.parametrize("image", [np.full((40, 60, 3), 0.5), np.full((40, 60), 128.0),
                                   np.full((40, 60, 5), 128, np.uint8)])  # fmt: skip
def test_assignments_are_drawn_on_any_pixels(image):
    assignment = ImageAssignment(
        torch.tensor([[30.0, 20]]), torch.tensor([8.0]), torch.tensor([[10.0, 10, 50, 30]]),
        torch.tensor([0]), torch.tensor([0]), torch.tensor([0]),
    )  # fmt: skip
    drawn = draw_assignment(image, assignment, min_width=60)
    assert drawn.shape == (40, 60, 3) and drawn[0, 0].tolist() == [128] * 3
    assert (drawn[20, 30] != 128).any() and (drawn[10, 30] != 128).any()
    boxes = draw_positives_and_negatives(
        image, np.array([[10.0, 10, 50, 30]]), np.array([0]), np.array([], int))  # fmt: skip
    assert boxes.shape == (320, 480, 3) and boxes[80, 240].tolist() == [160, 60, 220]


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
