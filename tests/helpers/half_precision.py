"""Trainings in half precision on images full of objects; whether a CPU computes in float16."""

import pytest
import torch

from helpers.dense_head_cases import instances


def _float16_on_the_cpu():
    try:
        with torch.autocast("cpu", torch.float16):
            torch.zeros(1, 2, dtype=torch.float16).log_softmax(dim=1)
    except RuntimeError:
        return False
    return True


needs_float16 = pytest.mark.skipif(
    not _float16_on_the_cpu(), reason="this torch does not compute in float16 on a CPU"
)
FLOAT16 = pytest.param(torch.float16, marks=needs_float16)


def scene(num, seed, device, corners=200, largest=80):
    """Two images with objects of 8 to 8 + ``largest`` pixels, their corners below ``corners``."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(2):
        corner = torch.rand(num, 2, generator=generator) * corners
        size = 8 + torch.rand(num, 2, generator=generator) ** 2 * largest
        boxes = torch.cat([corner, corner + size], dim=1).tolist()
        images.append(instances(*boxes, labels=[i % 3 for i in range(num)]).to(device))
    return images


def train(head, losses_of, device, dtype, steps):
    """Total loss of each step; every loss of every step is finite.

    Args:
        losses_of: function without arguments, the head's losses by name.
    """
    foreach = None if device == "cpu" else True  # torch's default on a GPU
    optimizer = torch.optim.SGD(
        head.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4, foreach=foreach
    )
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    totals = []
    for _ in range(steps):
        with torch.autocast(device, dtype):
            losses = losses_of()
        assert all(value.isfinite() for value in losses.values()), losses
        total = sum(losses.values())
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(head.parameters(), 10)
        scaler.step(optimizer)
        scaler.update()
        totals.append(total.item())
    return totals
