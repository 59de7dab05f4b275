"""Rows of losses for tests of the Gaussian mixture."""

import numpy as np
import torch


def random_losses(num, k, seed):
    """Loss vectors of seven kinds, sorted, padded with inf: (num, k) float32."""
    rng = np.random.default_rng(seed)
    out = np.full((num, k), np.inf, dtype=np.float32)
    for i in range(num):
        size = rng.integers(2, k + 1) if i % 3 == 0 else k
        values = [
            lambda n: rng.gamma(2, 0.5, n),
            lambda n: rng.exponential(0.2, n),
            lambda n: np.concatenate(
                [rng.normal(0.5, 0.1, n // 2), rng.normal(2, 0.3, n - n // 2)]
            ),
            lambda n: rng.choice([0.1, 0.5, 0.9, 1.3], n),  # duplicates
            lambda n: np.full(n, rng.random()),  # all equal
            lambda n: np.append(rng.random(n - 1), rng.choice([1e2, 1e4, 1e6])),  # an outlier
            lambda n: np.round(rng.random(n), 1),  # ties
        ][i % 7](size)
        out[i, :size] = np.sort(values)
    return torch.from_numpy(out)
