"""All levels of a feature pyramid joined in one tensor, so that an operation runs once."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmcv.cnn import Scale
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from torch import Tensor

from ...utils.compiler import compiling, exporting

MAX_CACHED_SIZES = 32


def join_levels(levels: Sequence[Tensor]) -> Tensor:
    """``(N, D, H, W)`` per level -> ``(N, D, P)``, locations in order of level, row, column."""
    return torch.cat([level.flatten(2) for level in levels], dim=2)


def split_levels(joined: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """``(N, D, P)`` -> views ``(N, D, H, W)`` per level, of the sizes that ``like`` has."""
    sizes = [level.shape[-2:] for level in like]
    parts = joined.split([height * width for height, width in sizes], dim=2)
    return [part.unflatten(2, tuple(size)) for part, size in zip(parts, sizes)]


def flatten_levels(levels: Sequence[Tensor]) -> Tensor:
    """``(N, D, H, W)`` per level -> ``(N, P, D)``, locations in order of level, row, column."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)


def scaled_levels(levels: Sequence[Tensor], scales: Iterable[Scale]) -> Tensor:
    """:func:`join_levels` of each level multiplied by its own factor.

    Args:
        levels: ``(N, D, H, W)`` per level.
        scales: mmcv's ``Scale``, one per level.

    Returns:
        ``(N, D, P)``.
    """
    return join_levels(levels) * per_location([scale.scale for scale in scales], levels)


def per_location(values: Iterable[Tensor], levels: Sequence[Tensor]) -> Tensor:
    """Each level's value at all its locations, ``(P,)``.

    Args:
        values: a tensor of one element per level.
        levels: ``(..., H, W)`` per level.
    """
    counts = [level.shape[-2] * level.shape[-1] for level in levels]
    return torch.cat([value.expand(count) for value, count in zip(values, counts)])


class CachedPointGenerator(MlvlPointGenerator):
    """mmdet's ``MlvlPointGenerator``, which makes the points of each combination of sizes once.

    Later calls return the same tensors: do not change them in place.

    Args:
        *args, **kwargs: passed to mmdet's ``MlvlPointGenerator``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._made: dict[tuple, tuple[list[Tensor], Tensor]] = {}

    def grid_priors(
        self,
        featmap_sizes: list[tuple],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cuda",
        with_stride: bool = False,
    ) -> list[Tensor]:
        """Points as mmdet's method of this name: ``(H * W, 2)``, with stride ``(H * W, 4)``."""
        return list(self._points(featmap_sizes, dtype, device, with_stride)[0])

    def joined(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Location centres ``(P, 2)`` and strides ``(P,)`` in pixels, float32.

        Args:
            levels: tensors ``(..., H, W)`` with the sizes and the device of the feature maps.
        """
        sizes = [level.shape[-2:] for level in levels]
        _, priors = self._points(sizes, torch.float32, levels[0].device, True)
        return priors[:, :2], priors[:, 2]

    def _points(
        self,
        sizes: Sequence[tuple],
        dtype: torch.dtype,
        device: torch.device | str,
        with_stride: bool,
    ) -> tuple[list[Tensor], Tensor]:
        if exporting() or compiling():
            return self._make(sizes, dtype, device, with_stride)
        key = (dtype, str(device), with_stride, *map(tuple, sizes))
        if key not in self._made:
            if len(self._made) >= MAX_CACHED_SIZES:  # drop the oldest
                del self._made[next(iter(self._made))]
            # A tensor of inference mode could not take part in a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._made[key] = self._make(sizes, dtype, device, with_stride)
        return self._made[key]

    def _make(
        self,
        sizes: Sequence[tuple],
        dtype: torch.dtype,
        device: torch.device | str,
        with_stride: bool,
    ) -> tuple[list[Tensor], Tensor]:
        points = super().grid_priors(sizes, dtype, device, with_stride)
        return points, torch.cat(points)

    def __deepcopy__(self, memo: dict) -> "CachedPointGenerator":
        copy = type(self).__new__(type(self))
        copy.__dict__.update(deepcopy(dict(vars(self), _made={}), memo))
        return copy

    def __getstate__(self) -> dict:
        return dict(vars(self), _made={})
