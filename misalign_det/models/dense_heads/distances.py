"""Distances of a location to the sides of its box, in strides."""

from collections.abc import Sequence

from torch import Tensor

# exp(8) strides is far beyond any image; without a bound one bad step overflows to inf.
MAX_LOG_DISTANCE = 8.0


def distance_per_level(distance: float | Sequence[float], num_levels: int) -> list[float]:
    """``init_distance`` of each level.

    Raises:
        ValueError: not one positive number, nor one per level.
    """
    each = [distance] * num_levels if isinstance(distance, int | float) else list(distance)
    if len(each) != num_levels or not all(isinstance(d, int | float) and d > 0 for d in each):
        raise ValueError(
            f"init_distance must be a positive number, or one for each of the {num_levels} levels, "
            f"not {distance}."
        )
    return each


def exp_distance(log_distance: Tensor) -> Tensor:
    """Positive distances from a head's output, in float32 even under autocast."""
    return log_distance.float().clamp(max=MAX_LOG_DISTANCE).exp()
