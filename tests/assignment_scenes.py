"""Scenes at random for the tests of label assignment."""

import torch


class Scene:
    """Two levels over 128 x 128 pixels, objects of 6 to 90 pixels, predictions at random."""

    def __init__(self, seed, num_gts, classes):
        generator = torch.Generator().manual_seed(seed)
        rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
        grids = []
        for stride in (8, 16):
            side = torch.arange(128 // stride) * stride + stride / 2.0
            grids.append(torch.cartesian_prod(side, side).flip(1))
        self.points = torch.cat(grids)
        self.strides = torch.cat([torch.full((len(g),), float(s))
                                  for g, s in zip(grids, (8, 16))])  # fmt: skip
        corner = rand(num_gts, 2) * 110
        self.gts = torch.cat([corner, corner + 6 + rand(num_gts, 2) * 84], 1)
        self.labels = torch.randint(0, classes, (num_gts,), generator=generator)
        self.logits = 3 * torch.randn(len(self.points), classes, generator=generator)
        reach = 4 + rand(len(self.points), 4) * 40
        self.bboxes = torch.cat([self.points - reach[:, :2], self.points + reach[:, 2:]], 1)
