"""Images full of objects, for trainings in half precision."""

import torch
from dense_head_cases import instances


def scene(num, seed, device):
    """Two images of 256 x 256 pixels with objects of 8 to 88."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(2):
        corner = torch.rand(num, 2, generator=generator) * 200
        size = 8 + torch.rand(num, 2, generator=generator) ** 2 * 80
        boxes = torch.cat([corner, corner + size], dim=1).tolist()
        images.append(instances(*boxes, labels=[i % 3 for i in range(num)]).to(device))
    return images
