"""Random scenes, ground truth and locations for tests of label assignment."""

import torch
from mmengine.structures import InstanceData

from misalign_det.models.task_modules.assigners.candidates import BatchGroundTruth


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


def crowd(seed=0, num_classes=2):
    """Many overlapping objects, so that every choice of an assigner shows in the result.

    Returns:
        Points ``(P, 2)``, strides ``(P,)``, logits ``(1, P, C)``, boxes ``(1, P, 4)`` and ground
        truth, as ``assign_batch`` takes them.
    """
    scene = Scene(seed, 25, num_classes)
    # Predictions that know a little of the nearest object, so that shares differ.
    centres = (scene.gts[:, :2] + scene.gts[:, 2:]) / 2
    nearest = torch.cdist(scene.points, centres).argmin(1)
    bboxes = (scene.gts[nearest] + 0.3 * scene.bboxes) / 1.3
    objects = InstanceData(bboxes=scene.gts, labels=scene.labels)
    gts = BatchGroundTruth.from_instances([objects])
    return scene.points, scene.strides, scene.logits[None] / 3, bboxes[None], gts


def same_assignment(mine, theirs):
    """Whether two results of ``assign_batch`` are equal."""
    return all(
        getattr(mine, name).shape == getattr(theirs, name).shape
        and torch.equal(getattr(mine, name), getattr(theirs, name))
        for name in ("prior_inds", "losses", "weights", "ignored", "thresholds", "means")
    )


def ground_truth(*images):
    """Ground truth of a batch; each image is a list of ((x1, y1, x2, y2), label)."""
    return BatchGroundTruth.from_instances(
        [
            InstanceData(
                bboxes=torch.tensor([box for box, _ in image], dtype=torch.float32).reshape(-1, 4),
                labels=torch.tensor([label for _, label in image], dtype=torch.long),
            )
            for image in images
        ]
    )


def grid(size=4, stride=8):
    """Locations of a square map, ``(size * size, 2)``, row by row."""
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (torch.stack([xs, ys], dim=-1).reshape(-1, 2) + 0.5) * stride
