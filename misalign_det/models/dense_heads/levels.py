"""All levels of a feature pyramid side by side, so that a step on them is taken once."""

from collections.abc import Sequence

import torch
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from torch import Tensor, nn

from ..layers.deform_conv import exporting

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


def scaled_levels(levels: Sequence[Tensor], scales: nn.ModuleList) -> Tensor:
    """:func:`join_levels` of each level times its own factor, an mmcv ``Scale``."""
    counts = [level.shape[-2] * level.shape[-1] for level in levels]
    factors = [scale.scale.expand(count) for scale, count in zip(scales, counts)]
    return join_levels(levels) * torch.cat(factors)


class CachedPoints:
    """Locations of feature maps, made once for each combination of sizes.

    Args:
        generator: mmdet's ``MlvlPointGenerator`` of the head.
    """

    def __init__(self, generator: MlvlPointGenerator) -> None:
        self.generator = generator
        self._made: dict[tuple, tuple[Tensor, Tensor]] = {}

    def __call__(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Location centres ``(P, 2)`` and strides ``(P,)`` in pixels, float32, not to be changed.

        Args:
            levels: of the feature maps' sizes and device.
        """
        if exporting() or torch.compiler.is_compiling():
            return self._make(levels)
        key = (levels[0].device, *(tuple(level.shape[-2:]) for level in levels))
        if key not in self._made:
            if len(self._made) >= MAX_CACHED_SIZES:  # the oldest goes
                del self._made[next(iter(self._made))]
            # A tensor of inference mode could not take part in a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._made[key] = self._make(levels)
        return self._made[key]

    def _make(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        priors = torch.cat(
            self.generator.grid_priors(
                [level.shape[-2:] for level in levels],
                dtype=torch.float32,
                device=levels[0].device,
                with_stride=True,
            )
        )
        return priors[:, :2], priors[:, 2]

    def __deepcopy__(self, memo: dict) -> "CachedPoints":
        return CachedPoints(self.generator)

    def __getstate__(self) -> dict:
        return dict(generator=self.generator, _made={})
