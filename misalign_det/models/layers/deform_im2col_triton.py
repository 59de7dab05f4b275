"""Triton kernels of the deformable convolution: im2col (forward) and col2im (backward).

A sample is the row of channels that one tap reads at one location. Samples are numbered by
location, then by tap. Positions, bilinear weights and sums are in the dtype of the offsets, float32
or float64, whatever the dtype of features and samples.
"""

import os

import triton
import triton.language as tl
from torch import Tensor

from ...utils.triton_support import launch

# Samples per program, and channels that it processes at once, powers of two. Larger blocks need
# more registers than a thread has.
SAMPLES = 8
CHANNELS = 128
MAX_INTERPRETED = 2**20  # elements per block, Triton's limit

# Not specialised: Triton would compile one kernel for sizes that are divisible by 16, one for
# others, and so on; likewise for the addresses of offsets and their gradients, which start anywhere
# within a buffer of all levels.
SIZES = [
    "first", "count", "height", "width",
    "offset_image", "offset_channel", "offset_row", "offset_column",
    "mask_image", "mask_channel", "mask_row", "mask_column",
]  # fmt: skip


@triton.jit
def _locate(
    offset, mask, locations, sample, exists, first, height, width,
    offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column,
    MODULATED: tl.constexpr, CHOSEN: tl.constexpr,
):  # fmt: skip
    """The four cells around the position of each sample.

    Returns:
        Index of the upper left cell in the flattened ``N * H * W``; whether the upper row, the
        lower row, the left and the right column are inside the map; distance of the position below
        and to the right of the upper left cell; the mask's factor on the tap.
    """
    # In 32 bits: the offsets of 2^31 locations would take 155 GB.
    location = first + sample // 9
    if CHOSEN:
        location = tl.load(locations + location, mask=exists, other=0).to(tl.int32)
    tap = sample % 9
    column = location % width
    row = location // width % height
    image = (location // width // height).to(tl.int64)
    place = offset + image * offset_image
    place += row * offset_row + column * offset_column + 2 * tap * offset_channel
    y = tl.load(place, mask=exists, other=0) + (row + tap // 3 - 1)
    x = tl.load(place + offset_channel, mask=exists, other=0) + (column + tap % 3 - 1)
    # One cell outside the map or further all samples are zero; those at NaN are NaN.
    outside = (y <= -1) | (y >= height) | (x <= -1) | (x >= width)
    inside = exists & (outside == 0)
    y = tl.where(inside, y, 0.0)
    x = tl.where(inside, x, 0.0)
    finite_y = tl.where(y == y, y, 0.0)
    finite_x = tl.where(x == x, x, 0.0)
    upper = finite_y.to(tl.int32)  # rounded towards zero
    left = finite_x.to(tl.int32)
    upper -= (finite_y < upper).to(tl.int32)
    left -= (finite_x < left).to(tl.int32)
    cell = (image * height + upper) * width + left
    down = y - upper
    right = x - left
    if MODULATED:
        place = mask + image * mask_image + row * mask_row + column * mask_column
        factor = tl.load(place + tap * mask_channel, mask=exists, other=0)
    else:
        factor = down * 0 + 1
    read_upper = inside & (upper >= 0)
    read_lower = inside & (upper < height - 1)
    return cell, read_upper, read_lower, left >= 0, left < width - 1, down, right, factor


@triton.jit
def _read(features, rows, channels, WIDE: tl.constexpr):
    """A block of rows of channels, zero where masked, in the dtype of the offsets."""
    return tl.load(features, mask=rows[:, None] & channels, other=0).to(WIDE)


@triton.jit
def _add(sums, values, rows, channels):
    """Atomically add a block of rows of channels."""
    tl.atomic_add(sums, values, mask=rows[:, None] & channels, sem="relaxed")


@triton.jit(do_not_specialize=["offset", "mask", "locations", *SIZES])
def _im2col(
    x, offset, mask, locations, samples, first, count, height, width,
    offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column,
    WIDTH: tl.constexpr, MODULATED: tl.constexpr, CHOSEN: tl.constexpr,
    SAMPLES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Samples of ``WIDTH`` channels, ``count`` of them, from the location ``first`` on."""
    sample = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    exists = sample < count
    cell, upper, lower, left, right, dy, dx, factor = _locate(
        offset, mask, locations, sample, exists, first, height, width,
        offset_image, offset_channel, offset_row, offset_column,
        mask_image, mask_channel, mask_row, mask_column, MODULATED, CHOSEN,
    )  # fmt: skip
    wide = offset.dtype.element_ty
    share_1 = ((1 - dy) * (1 - dx) * factor)[:, None]
    share_2 = ((1 - dy) * dx * factor)[:, None]
    share_3 = (dy * (1 - dx) * factor)[:, None]
    share_4 = (dy * dx * factor)[:, None]
    above = x + cell[:, None] * WIDTH
    below = x + (cell + width)[:, None] * WIDTH
    out = samples + sample.to(tl.int64)[:, None] * WIDTH
    for start in range(0, WIDTH, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)[None, :]
        known = channel < WIDTH
        value = share_1 * _read(above + channel, upper & left, known, wide)
        value += share_2 * _read(above + WIDTH + channel, upper & right, known, wide)
        value += share_3 * _read(below + channel, lower & left, known, wide)
        value += share_4 * _read(below + WIDTH + channel, lower & right, known, wide)
        tl.store(out + channel, value.to(samples.dtype.element_ty), mask=exists[:, None] & known)


@triton.jit(do_not_specialize=["offset", "mask", "grad_offset", "grad_mask", *SIZES])
def _col2im(
    x, offset, mask, grad, grad_x, grad_offset, grad_mask, first, count, height, width,
    offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column,
    WIDTH: tl.constexpr, MODULATED: tl.constexpr, TO_X: tl.constexpr, TO_OFFSET: tl.constexpr,
    SAMPLES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Add to the gradient of ``x``, and write the gradients of offsets and mask."""
    sample = tl.program_id(0) * SAMPLES + tl.arange(0, SAMPLES)
    exists = sample < count
    cell, upper, lower, left, right, dy, dx, factor = _locate(
        offset, mask, offset, sample, exists, first, height, width,
        offset_image, offset_channel, offset_row, offset_column,
        mask_image, mask_channel, mask_row, mask_column, MODULATED, False,
    )  # fmt: skip
    wide = offset.dtype.element_ty
    down = dy[:, None]
    along = dx[:, None]
    share_1 = (1 - down) * (1 - along)
    share_2 = (1 - down) * along
    share_3 = down * (1 - along)
    share_4 = down * along
    above = cell[:, None] * WIDTH
    below = (cell + width)[:, None] * WIDTH
    out = grad + sample.to(tl.int64)[:, None] * WIDTH
    to_y = tl.zeros((SAMPLES,), wide)
    to_x = tl.zeros((SAMPLES,), wide)
    to_factor = tl.zeros((SAMPLES,), wide)
    for start in range(0, WIDTH, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)[None, :]
        known = channel < WIDTH
        g = _read(out + channel, exists, known, wide)
        if TO_OFFSET:
            value_1 = _read(x + above + channel, upper & left, known, wide)
            value_2 = _read(x + above + WIDTH + channel, upper & right, known, wide)
            value_3 = _read(x + below + channel, lower & left, known, wide)
            value_4 = _read(x + below + WIDTH + channel, lower & right, known, wide)
            slope_y = (value_3 - value_1) * (1 - along) + (value_4 - value_2) * along
            slope_x = (value_2 - value_1) * (1 - down) + (value_4 - value_3) * down
            to_y += tl.sum(g * slope_y, axis=1)
            to_x += tl.sum(g * slope_x, axis=1)
            if MODULATED:
                value = share_1 * value_1 + share_2 * value_2
                value += share_3 * value_3 + share_4 * value_4
                to_factor += tl.sum(g * value, axis=1)
        if TO_X:
            g = g * factor[:, None]
            _add(grad_x + above + channel, share_1 * g, upper & left, known)
            _add(grad_x + above + WIDTH + channel, share_2 * g, upper & right, known)
            _add(grad_x + below + channel, share_3 * g, lower & left, known)
            _add(grad_x + below + WIDTH + channel, share_4 * g, lower & right, known)
    if TO_OFFSET:
        place = 9 * first.to(tl.int64) + sample
        tl.store(grad_offset + 2 * place, to_y * factor, mask=exists)
        tl.store(grad_offset + 2 * place + 1, to_x * factor, mask=exists)
        if MODULATED:
            tl.store(grad_mask + place, to_factor, mask=exists)


def _blocks(count: int, channels: int) -> dict[str, int]:
    """Block sizes of a kernel for ``count`` samples of ``channels`` channels."""
    channels = min(CHANNELS, triton.next_power_of_2(channels))
    samples = SAMPLES
    if os.environ.get("TRITON_INTERPRET") == "1":  # the overhead of a program is large
        samples = min(triton.next_power_of_2(count), MAX_INTERPRETED // channels)
    return dict(SAMPLES=samples, CHANNELS=channels)


def im2col(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    samples: Tensor,
    first: int = 0,
    locations: Tensor | None = None,
) -> None:
    """Write the samples of consecutive locations, or of some.

    Args:
        x: features ``(N, H, W, C)``, contiguous.
        offset: ``(N, 18, H, W)`` in cells, ``[y0, x0, y1, x1, ...]``, float32 or float64.
        mask: factor on each tap, ``(N, 9, H, W)``, in the dtype of ``offset``.
        samples: written, ``(n, 9 * C)``, contiguous, less than 2^31 elements.
        first: index of the first location in the flattened ``N * H * W``, or in ``locations``.
        locations: indices into the flattened ``N * H * W`` in int64; all by default.
    """
    _, height, width, channels = x.shape
    count = 9 * len(samples)
    blocks = _blocks(count, channels)
    launch(
        _im2col, (triton.cdiv(count, blocks["SAMPLES"]),),
        x, offset, offset if mask is None else mask, offset if locations is None else locations,
        samples, first, count, height, width,
        *offset.stride(), *(0, 0, 0, 0) if mask is None else mask.stride(),
        WIDTH=channels, MODULATED=mask is not None, CHOSEN=locations is not None,
        **blocks,
    )  # fmt: skip


def col2im(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    grad: Tensor,
    first: int,
    grad_x: Tensor | None,
    grad_offset: Tensor | None,
    grad_mask: Tensor | None,
) -> None:
    """Gradients of features, offsets and mask from the gradient of samples.

    Args:
        x, offset, mask, first: see :func:`im2col`.
        grad: of the samples, ``(n, 9 * C)``, contiguous.
        grad_x: ``(N, H, W, C)``, added to by atomic operations, so not deterministically; not
            computed if ``None``.
        grad_offset: ``(N, H, W, 18)``, written at the locations of the samples; not computed, and
            ``grad_mask`` neither, if ``None``.
        grad_mask: ``(N, H, W, 9)``, written as ``grad_offset``. All three are contiguous and in the
            dtype of ``offset``.
    """
    _, height, width, channels = x.shape
    count = 9 * len(grad)
    blocks = _blocks(count, channels)
    launch(
        _col2im, (triton.cdiv(count, blocks["SAMPLES"]),),
        x, offset, offset if mask is None else mask, grad,
        *(offset if out is None else out for out in (grad_x, grad_offset, grad_mask)),
        first, count, height, width,
        *offset.stride(), *(0, 0, 0, 0) if mask is None else mask.stride(),
        WIDTH=channels, MODULATED=mask is not None,
        TO_X=grad_x is not None, TO_OFFSET=grad_offset is not None,
        **blocks,
    )  # fmt: skip
