"""Images of any dtype and number of channels as uint8 RGB."""

import numpy as np
import pytest
import torch

from misalign_det.utils import tensor_to_rgb_image, to_rgb_image

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


def image(*channels, dtype=torch.uint8):
    """(C, 1, W) of rows of values."""
    return torch.tensor(channels, dtype=dtype)[:, None]


def test_bytes_keep_their_values_and_bgr_becomes_rgb():
    pixels = image([10, 255], [20, 0], [30, 1])
    picture = tensor_to_rgb_image(pixels)
    assert picture.dtype == np.uint8 and picture.shape == (1, 2, 3)
    assert picture[0].tolist() == [[30, 20, 10], [1, 0, 255]]
    assert tensor_to_rgb_image(pixels, rgb=True)[0].tolist() == [[10, 20, 30], [255, 0, 1]]
    picture[:] = 0
    assert pixels.max() == 255  # a copy


def test_floats_between_0_and_255_keep_their_values():
    picture = tensor_to_rgb_image(
        image([0.4, 254.6], [1.5, 2.5], [0.0, 255.0], dtype=torch.float32), True
    )
    assert picture[0].tolist() == [[0, 2, 0], [255, 2, 255]]
    bright = image([100.0, 255.0], [100.0, 254.5], [101.0, 200.0], dtype=torch.float32)
    assert tensor_to_rgb_image(bright, True)[0].tolist() == [[100, 100, 101], [255, 254, 200]]
    half = image([100.0], [3.0], [200.0], dtype=torch.float16)
    assert tensor_to_rgb_image(half, True)[0].tolist() == [[100, 3, 200]]


def test_floats_between_0_and_1_are_scaled():
    picture = tensor_to_rgb_image(
        image([0.0, 1.0], [0.2, 0.4], [0.6, 0.8], dtype=torch.float32), True
    )
    assert picture[0].tolist() == [[0, 51, 153], [255, 102, 204]]
    assert tensor_to_rgb_image(torch.ones(3, 1, 1, dtype=torch.uint8))[0].tolist() == [[1, 1, 1]]
    assert tensor_to_rgb_image(torch.zeros(3, 1, 1)).max() == 0


def test_other_ranges_are_stretched():
    normalised = image([-1.0, 0.0], [1.0, 4.0], [-0.5, 1.5], dtype=torch.float32)
    assert tensor_to_rgb_image(normalised, True)[0].tolist() == [[0, 102, 26], [51, 255, 128]]
    deep = image([0, 65535], [0, 13107], [26214, 0], dtype=torch.int32)
    assert tensor_to_rgb_image(deep, True)[0].tolist() == [[0, 0, 102], [255, 51, 0]]
    assert tensor_to_rgb_image(torch.full((3, 1, 1), 300.0)).tolist() == [[[0, 0, 0]]]
    infinite = image(
        [0.0, float("nan")], [float("inf"), 7.0], [9.0, -float("inf")], dtype=torch.float32
    )
    assert tensor_to_rgb_image(infinite, True)[0].tolist() == [[0, 0, 9], [0, 7, 0]]
    normalised[0, 0, 1] = float("nan")  # is 0, as before
    assert tensor_to_rgb_image(normalised, True)[0].tolist() == [[0, 102, 26], [51, 255, 128]]


def test_one_two_and_five_channels_are_grey():
    assert tensor_to_rgb_image(image([7, 9]))[0].tolist() == [[7] * 3, [9] * 3]
    assert tensor_to_rgb_image(image([10], [20]))[0].tolist() == [[15] * 3]
    assert tensor_to_rgb_image(image([0], [10], [20], [30], [40]))[0].tolist() == [[20] * 3]


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
        (RGB[..., [0, 0]], RGB[..., :1].repeat(3, -1)),
        (RGB[:, ::-1], RGB[:, ::-1]),
    ],
)
def test_any_pixels(image, expected):
    found = to_rgb_image(image)
    assert found.dtype == np.uint8 and found.shape == (2, 3, 3) and found.flags.c_contiguous
    if expected is None:
        assert np.abs(found.astype(int) - RGB).max() <= 1
    else:
        assert np.array_equal(found, expected)


def test_pixels_out_of_range_are_stretched():
    normalised = np.array([[[-2.0], [0.0], [2.0]]])
    assert to_rgb_image(normalised)[0, :, 0].tolist() == [0, 128, 255]
    deep = np.array([[0, 30000, 60000]], np.uint16)
    assert to_rgb_image(deep)[0, :, 0].tolist() == [0, 128, 255]
    # Whole numbers are 0 to 255 even where none exceeds 1.
    assert to_rgb_image(np.array([[0, 1]], np.int32)).max() == 1
    assert to_rgb_image(np.array([[0.5, np.nan]]))[..., 0].tolist() == [[128, 0]]
    assert to_rgb_image(np.full((2, 2), 300.0)).max() == 0
