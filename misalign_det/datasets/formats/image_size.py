"""The size of an image as training loads it."""

from collections.abc import Iterator
from contextlib import contextmanager

import mmcv
from PIL import Image

_EXIF_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
_PIXELS = 2**30  # of the largest image that OpenCV reads


def read_size(path: str, decode: bool) -> tuple[int, int]:
    """(width, height) of an image, turned as its EXIF orientation says.

    Args:
        path: of the image.
        decode: decode all of it, which finds damage, not only its header.

    Raises:
        Exception: it cannot be opened or decoded; decoders raise errors of any type.
    """
    with _large_images(), Image.open(path) as image:
        width, height = image.size
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
        photo = image.format in ("JPEG", "MPO")
        if decode:
            image.load()
    if sideways and not photo:  # whether OpenCV turns it depends on its version
        height, width = mmcv.imread(path, backend="cv2").shape[:2]
        sideways = False
    return (height, width) if sideways else (width, height)


@contextmanager
def _large_images() -> Iterator[None]:
    """Let Pillow open images up to the size that OpenCV reads; it refuses twice its limit."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, _PIXELS // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
