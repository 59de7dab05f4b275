"""One deformable convolution with equal forms: mmcv's CUDA op, bilinear samples, gathered rows.

The last form also at some locations alone.
"""

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2d, deform_conv2d, modulated_deform_conv2d
from torch import Tensor

IM2COL_STEP = 32  # images a step of mmcv's kernel, its default
GATHERED_FROM = 1000  # locations; below, the gathered form's many small operations take longer
SAMPLED_CHANNELS = 16  # of an image that are sampled together


def sampled_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """3x3 deformable convolution, stride 1, padding 1, by bilinear samples and one matrix product.

    The same values and gradients as ``mmcv.ops.deform_conv2d`` (with a mask,
    ``modulated_deform_conv2d``), many times faster on the CPU, and made of operators that export
    to ONNX.

    Positions and samples are in the offsets' precision, the product in that of ``x``.

    Args:
        x: ``(N, C_in, H, W)``.
        offset: ``(N, 18, H, W)`` in feature cells, ``[y0, x0, y1, x1, ...]``, taps in row order.
        weight: ``(C_out, C_in, 3, 3)``.
        mask: factor on each tap, ``(N, 9, H, W)`` (deformable v2).

    Returns:
        ``(N, C_out, H, W)`` in the dtype of ``x``.
    """
    num, channels, height, width = x.shape
    taps = torch.arange(9, device=x.device)
    cell_y = torch.arange(height, device=x.device)[:, None] + (taps // 3 - 1)[:, None, None]
    cell_x = torch.arange(width, device=x.device) + (taps % 3 - 1)[:, None, None]
    offset = offset.view(num, 9, 2, height, width)
    y = (2 * (offset[:, :, 0] + cell_y) + 1) / height - 1
    x_ = (2 * (offset[:, :, 1] + cell_x) + 1) / width - 1
    grid = torch.stack([x_, y], dim=-1).view(num, 9 * height, width, 2)
    samples = _sample(x.to(grid.dtype), grid)
    if mask is not None:
        samples = samples * mask.reshape(num, 1, 9 * height, width)
    # A product an image, which reads the samples where they lie; a 1x1 convolution does too, but
    # its gradients took twice the time.
    kernels = weight.reshape(1, len(weight), channels * 9).to(x.dtype).expand(num, -1, -1)
    samples = samples.reshape(num, channels * 9, height * width).to(x.dtype)
    return torch.bmm(kernels, samples).view(num, len(weight), height, width)


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples ``(N, C, h, w)`` of ``x``, ``(N, C, H, W)``, at ``(N, h, w, 2)``.

    Some channels at a time, as images of their own: on the CPU ``grid_sample`` has one thread an
    image and reads all its channels at each place, which for 256 of them are not in the cache.
    """
    shape = (*x.shape[:2], *grid.shape[1:3])
    if x.shape[1] % SAMPLED_CHANNELS == 0 and not (x.is_cuda or _exporting()):
        groups = x.shape[1] // SAMPLED_CHANNELS
        x = x.reshape(-1, SAMPLED_CHANNELS, *x.shape[2:])
        grid = grid[:, None].expand(-1, groups, -1, -1, -1).flatten(0, 1)
    return F.grid_sample(
        x, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    ).view(shape)


def gathered_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """:func:`sampled_deform_conv2d` for inference on the CPU: the products first, then the samples.

    ``y(p) = sum over the taps n of w_n x(p + p_n + offset_n)``, and ``x`` between the cells is a
    weighted sum of the four around: so ``w_n x`` can be had for every cell of the map before
    anything is sampled, and what is left is a weighted sum of 9 x 4 rows at each location. On large
    maps of many channels a fifth faster forward, with no samples to hold, but slower backward.

    Args and shapes: as there.
    """
    num, channels, height, width = x.shape
    index, share = _corners(offset.permute(0, 2, 3, 1).reshape(-1, 9, 2), offset)
    if mask is not None:
        share = share * mask.permute(0, 2, 3, 1).reshape(-1, 9, 1)
    # In the offsets' precision: rounded products would be summed nine times.
    products = weight.permute(1, 2, 3, 0).reshape(channels, -1).to(share.dtype)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels).to(share.dtype) @ products
    index = index * 9 + torch.arange(9, dtype=torch.int32, device=x.device)[:, None]
    out = F.embedding_bag(
        index.view(-1, 36), table.view(-1, len(weight)), mode="sum",
        per_sample_weights=share.view(-1, 36),
    )  # fmt: skip
    return out.view(num, height, width, -1).permute(0, 3, 1, 2).to(x.dtype)


def deform_conv2d_at(x: Tensor, offset: Tensor, weight: Tensor, locations: Tensor) -> Tensor:
    """:func:`sampled_deform_conv2d` at some locations alone, for inference.

    Args:
        x, offset, weight: as there.
        locations: places in the flattened ``N * H * W``, ``(n,)``.

    Returns:
        ``(n, C_out)`` in the dtype of ``x``.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        chosen = offset.permute(0, 2, 3, 1).reshape(-1, 9, 2)[locations].to(dtype)
        index, share = _corners(chosen, offset, locations)
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).to(dtype)
        samples = F.embedding_bag(
            index.view(-1, 4), rows, mode="sum", per_sample_weights=share.view(-1, 4)
        )
        kernel = weight.permute(2, 3, 1, 0).reshape(-1, len(weight)).to(dtype)
        return (samples.view(len(locations), len(kernel)) @ kernel).to(x.dtype)


def _corners(
    offset: Tensor, maps: Tensor, locations: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The four cells around each sample and their bilinear shares.

    Args:
        offset: of the locations' taps in cells, y before x, ``(n, 9, 2)``.
        maps: any tensor ``(N, _, H, W)``, for its size.
        locations: places in the flattened ``N * H * W``, ``(n,)``; all by default.

    Returns:
        Places in the flattened ``N * H * W`` and shares, ``(n, 9, 4)`` each; a sample outside has
        the share 0.
    """
    num, _, height, width = maps.shape
    taps = torch.arange(9, dtype=torch.int32, device=offset.device)
    if locations is None:
        locations = torch.arange(num * height * width, dtype=torch.int32, device=offset.device)
    row = locations.div(width, rounding_mode="floor").int()
    image = row.div(height, rounding_mode="floor")
    cells = []
    for axis, (size, cell) in enumerate(
        ((height, (row % height)[:, None] + taps // 3 - 1),
         (width, (locations % width).int()[:, None] + taps % 3 - 1))
    ):  # fmt: skip
        place = (offset[..., axis] + cell).clamp(-2, size + 1)  # farther out weighs nothing either
        low = place.floor()
        part, low = place - low, low.int()
        pair = torch.stack([low, low + 1], dim=-1)
        shares = torch.stack([1 - part, part], dim=-1) * ((pair >= 0) & (pair < size))
        cells.append((pair.clamp_(0, size - 1), shares))
    (rows, row_share), (columns, column_share) = cells
    first = (image * height)[:, None, None, None]
    index = (first + rows[..., None]) * width + columns[..., None, :]  # (n, 9, 2, 2)
    share = row_share[..., None] * column_share[..., None, :]
    return index.flatten(2), share.flatten(2)


def auto_deform_conv2d(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None = None
) -> Tensor:
    """mmcv's op on CUDA, on the CPU the gathered form without gradients, else the sampled one.

    Samples are taken in float32 (float64 for float64 input) whatever autocast says: positions in
    half precision are off by whole cells on large maps. The output has the dtype of ``x``.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        offset = offset.to(dtype)
        mask = None if mask is None else mask.to(dtype)
        # mmcv refuses maps smaller than its kernel, as the top level of a small image is.
        if not x.is_cuda or min(x.shape[-2:]) < 3 or _exporting():
            form = gathered_deform_conv2d if _gathers(x) else sampled_deform_conv2d
            return form(x, offset, weight, mask)
        wide, weight = x.to(dtype), weight.to(dtype)
        if mask is not None:
            out = modulated_deform_conv2d(wide, offset, mask, weight, None, 1, 1, 1, 1, 1)
        else:
            # mmcv's kernel splits the batch into equal steps; a batch it cannot split runs image
            # by image.
            step = IM2COL_STEP if len(x) % min(len(x), IM2COL_STEP) == 0 else 1
            out = deform_conv2d(wide, offset, weight, 1, 1, 1, 1, 1, False, step)
    return out.to(x.dtype)


class AutoDeformConv2d(DeformConv2d):
    """3x3 deformable convolution by :func:`auto_deform_conv2d`, with offsets from outside.

    No bias, no groups; parameters as in ``mmcv.ops.DeformConv2d``, so checkpoints are
    interchangeable.

    Shapes: input ``(N, C_in, H, W)``, offset ``(N, 18, H, W)`` in cells, output
    ``(N, C_out, H, W)`` in the input's dtype.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return auto_deform_conv2d(x, offset, self.weight)

    def at(self, x: Tensor, offset: Tensor, locations: Tensor) -> Tensor:
        """The output at some locations alone; see :func:`deform_conv2d_at`."""
        return deform_conv2d_at(x, offset, self.weight, locations)


def _gathers(x: Tensor) -> bool:
    large = len(x) * x.shape[2] * x.shape[3] >= GATHERED_FROM
    return large and not (x.is_cuda or torch.is_grad_enabled() or _exporting())


def _exporting() -> bool:
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
