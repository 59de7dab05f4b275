"""Images of any dtype and number of channels as uint8 RGB images."""

import numpy as np
from torch import Tensor


def to_rgb_image(image: np.ndarray) -> np.ndarray:
    """An image as uint8 RGB, a copy.

    uint8 and floats between 0 and 255 keep their values, floats between 0 and 1 are multiplied by
    255, and any other range (normalised, 16 bit) is stretched to 0 to 255. One channel becomes
    grey, and so does the mean of two or of more than three.

    Args:
        image: ``(h, w)`` or ``(h, w, n)`` of any dtype; three channels are RGB.

    Returns:
        ``(h, w, 3)`` in uint8.
    """
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    floating = np.issubdtype(image.dtype, np.floating)
    if floating:
        image = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = (float(image.min()), float(image.max())) if image.size else (0.0, 0.0)
    if low < 0 or high > 255:
        image = (image.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    elif floating and high <= 1:
        image = image * 255
    if image.shape[-1] != 3:
        image = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return np.array(image.round(), np.uint8, order="C")


def tensor_to_rgb_image(pixels: Tensor, rgb: bool = False) -> np.ndarray:
    """The output of a data pipeline as a uint8 RGB image; see :func:`to_rgb_image`.

    Args:
        pixels: input of the data preprocessor, ``(C, h, w)``, of any dtype on any device.
        rgb: whether three channels are RGB; mmdet's pipelines give BGR.

    Returns:
        ``(h, w, 3)`` in uint8.
    """
    image = pixels.detach().cpu()
    image = image.flip(0) if len(image) == 3 and not rgb else image
    return to_rgb_image(image.permute(1, 2, 0).numpy())
