"""Triton kernels of the deformable convolution: samples from features, gradients from theirs.

A sample is what one of the nine taps reads at one location: a row of channels. Samples are numbered
location by location, and within a location tap by tap. Positions, bilinear shares and sums are in
the dtype of the offsets, float32 or float64, whatever the dtype of features and samples.
"""

import os

import triton
import triton.language as tl
from torch import Tensor

from ...utils.triton_support import launch

# Samples of a program and channels that it holds at a time, powers of two. More of them take more
# registers than a thread has.
SAMPLES = 8
CHANNELS = 128
MOST_INTERPRETED = 2**20  # numbers of a block, Triton's limit

# Triton would compile one kernel for sizes that 16 divides, one for others, and so on; and so for
# the addresses of offsets and their gradients, of which those of a level start anywhere.
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
        Number of the upper left cell in the flattened ``N * H * W``; whether the upper row, the
        lower row, the left and the right column are to be read; how far the position lies below
        and to the right of the upper left cell; the factor on the tap.
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
    # A whole cell outside the map or further, all is zero. NaN is not: its samples will be NaN.
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
    return tl.load(features, mask=rows[:, None] & channels, other=0).to(WIDE)


@triton.jit
def _add(sums, values, rows, channels):
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
    """Adds the samples' gradient to that of ``x``, and writes those of their offset and factor."""
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
    """Constants of a kernel for so many samples of so many channels."""
    channels = min(CHANNELS, triton.next_power_of_2(channels))
    samples = SAMPLES
    if os.environ.get("TRITON_INTERPRET") == "1":  # programs run one after the other, each slowly
        samples = min(triton.next_power_of_2(count), MOST_INTERPRETED // channels)
    return dict(SAMPLES=samples, CHANNELS=channels)


def im2col(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    samples: Tensor,
    first: int = 0,
    locations: Tensor | None = None,
) -> None:
    """Write what the taps read at consecutive locations, or at some.

    Args:
        x: features ``(N, H, W, C)``, contiguous.
        offset: ``(N, 18, H, W)`` in cells, ``[y0, x0, y1, x1, ...]``, float32 or float64.
        mask: factor on each tap, ``(N, 9, H, W)``, in the dtype of ``offset``.
        samples: written, ``(n, 9 * C)``, contiguous, less than 2^31 numbers.
        first: number of the first location in the flattened ``N * H * W``, or in ``locations``.
        locations: numbers of locations, int64; all by default.
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
    """From the gradient of samples those of features, offsets and factors.

    Args:
        x, offset, mask, first: see :func:`im2col`.
        grad: of the samples, ``(n, 9 * C)``, contiguous.
        grad_x: added to by atomic operations, in an order that changes, ``(N, H, W, C)``; left out
            if ``None``.
        grad_offset: of all locations, those of the samples are written, ``(N, H, W, 18)``; left out
            with ``grad_mask`` if ``None``.
        grad_mask: the same, ``(N, H, W, 9)``. All three contiguous, in the dtype of ``offset``.
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
