"""Images as a pipeline hands them over, whatever their type and number of channels, to look at."""

import numpy as np
from torch import Tensor


def to_picture(pixels: Tensor, rgb: bool = False) -> np.ndarray:
    """An image to draw on.

    uint8, and floats between 0 and 255, keep their values; floats between 0 and 1 are multiplied by
    255; any other range (normalised, 16 bits) is stretched to 0 to 255. One channel is shown in
    grey, and so is the mean of two or of more than three.

    Args:
        pixels: of the network's input before the preprocessor, ``(C, H, W)``, any dtype.
        rgb: whether three channels are RGB; mmdet's pipelines leave BGR.

    Returns:
        uint8 RGB, ``(H, W, 3)``, with memory of its own.
    """
    image = pixels.detach().cpu()
    if image.dtype.is_floating_point:
        image = image.double().nan_to_num(0.0, 0.0, 0.0)
    low, high = (float(image.min()), float(image.max())) if image.numel() else (0.0, 0.0)
    if low < 0 or high > 255:
        image = (image.double() - low) * (255 / max(high - low, 1e-12))
    elif image.dtype.is_floating_point and 0 < high <= 1:
        image = image * 255
    if len(image) != 3:
        image = image.double().mean(0, keepdim=True).expand(3, -1, -1)
    elif not rgb:
        image = image.flip(0)
    image = image.permute(1, 2, 0)
    return np.array(image.round() if image.dtype.is_floating_point else image, np.uint8, order="C")
