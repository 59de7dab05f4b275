"""Images of any type and number of channels as pictures to look at and to draw on."""

import numpy as np
from torch import Tensor


def as_picture(image: np.ndarray) -> np.ndarray:
    """Pixels as uint8 RGB, with memory of their own.

    uint8, and floats between 0 and 255, keep their values; floats between 0 and 1 are multiplied by
    255; any other range (normalised, 16 bits) is stretched to 0 to 255. One channel is shown in
    grey, and so is the mean of two or of more than three.

    Args:
        image: ``(h, w)`` or ``(h, w, n)``, any dtype; three channels are RGB.

    Returns:
        ``(h, w, 3)``.
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


def to_picture(pixels: Tensor, rgb: bool = False) -> np.ndarray:
    """An image as a pipeline hands it over; see :func:`as_picture`.

    Args:
        pixels: of the network's input before the preprocessor, ``(C, h, w)``, any dtype and device.
        rgb: whether three channels are RGB; mmdet's pipelines leave BGR.

    Returns:
        uint8 RGB, ``(h, w, 3)``.
    """
    image = pixels.detach().cpu()
    image = image.flip(0) if len(image) == 3 and not rgb else image
    return as_picture(image.permute(1, 2, 0).numpy())
