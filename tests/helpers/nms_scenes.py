"""Boxes before NMS, with ties and degenerate boxes; CLBalancedNMS on CUDA against the CPU."""

import torch

from misalign_det.models.post_processing import cl_balanced_nms


def random_boxes(num, seed=0, classes=3, objects=None, size=200.0):
    """Boxes around objects, with few distinct scores, so that ties occur.

    Returns:
        boxes ``(num, 4)``, scores ``(num,)`` and labels ``(num,)``; those of one object are equal.
    """
    generator = torch.Generator().manual_seed(seed)
    objects = objects or max(1, num // 8)
    centre = torch.rand(objects, 2, generator=generator) * size
    extent = torch.rand(objects, 2, generator=generator) * 60 + 3
    owner = torch.randint(0, objects, (num,), generator=generator)
    centre = centre[owner] + torch.randn(num, 2, generator=generator) * extent[owner] * 0.15
    half = extent[owner] * (torch.randn(num, 2, generator=generator) * 0.2).exp() / 2
    scores = torch.randint(1, 50, (num,), generator=generator) / 50
    labels = torch.randint(0, classes, (objects,), generator=generator)[owner]
    return torch.cat([centre - half, centre + half], dim=1), scores, labels


def odd_boxes(num, seed):
    """Some boxes are equal, points, lines or of negative extent.

    Depending on the seed, coordinates are integers, and all scores distinct, few are, or all equal.

    Returns:
        boxes ``(num, 4)`` and scores ``(num,)``.
    """
    boxes, scores, labels = random_boxes(num, seed, objects=1 + num // 12)
    if seed % 2:
        boxes = (boxes / 4).round() * 4
    if seed % 3 == 0:
        boxes = boxes + (labels * 1000)[:, None]
    boxes[::17, 2:] = boxes[::17, :2]
    boxes[5::23, 2] = boxes[5::23, 0] - 3
    boxes[3::31] = boxes[3::31].flip(1)
    boxes[1::3] = boxes[: len(boxes[1::3])].clone()
    if seed % 4 == 0:
        scores = torch.rand(num, generator=torch.Generator().manual_seed(seed))
    elif seed % 4 == 1:
        scores = torch.full((num,), 0.5)
    return boxes, scores


def without_ties(scores):
    """Distinct scores in the stable order of ``scores``.

    mmcv's nms leaves the order of equal scores to torch's sort, which depends on the processor.
    """
    order = scores.sort(descending=True, stable=True)[1]
    return torch.empty_like(scores).index_copy(0, order, torch.linspace(1, 0.01, len(scores)))


def check_equal_on_cuda(boxes, scores, iou_threshold=0.5, **options):
    """The result on CUDA is the CPU's: indices, their order, boxes and scores."""
    expected = cl_balanced_nms(boxes, scores, iou_threshold, **options)
    dets, keep = cl_balanced_nms(boxes.to("cuda"), scores.to("cuda"), iou_threshold, **options)
    assert dets.is_cuda and keep.is_cuda
    assert dets.dtype == expected[0].dtype and keep.dtype == torch.int64
    assert keep.cpu().tolist() == expected[1].tolist()
    torch.testing.assert_close(dets.cpu(), expected[0], atol=1e-6, rtol=1e-6)
    return expected
