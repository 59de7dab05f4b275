"""Whether an exported detector gives the boxes and scores that the detector itself gives."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ...errors import InputError
from .detector_graph import DetectorGraph
from .nms_graph import NMSGraph

TOLERANCE = 1e-4  # of scores, and of boxes over the longer side of the image
NOISE = 1e-3  # grey levels, 0 to 255; moves scores about as much as another order of additions


@dataclass
class Difference:
    """Largest differences over the images.

    Attributes:
        boxes: of a coordinate, over the longer side of the input.
        scores: of a score.
        number: images compared.
        undetermined: inputs left out, whose detections noise below a grey level changes as much.
    """

    boxes: float = 0.0
    scores: float = 0.0
    number: int = 0
    undetermined: int = 0

    def add(self, boxes: float, scores: float) -> None:
        """Take the larger of the differences so far and those of an image."""
        self.boxes, self.scores = max(self.boxes, boxes), max(self.scores, scores)

    def add_determined(
        self, differences: tuple[float, float], graph: NMSGraph, images: Tensor
    ) -> None:
        """Add those of detections, unless noise on the images changes the graph's as well."""
        if max(differences) > TOLERANCE:
            noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
            own = graph(images), graph(images + NOISE * noise)
            if max(_of_detections(*own, max(images.shape[-2:]))) > TOLERANCE:
                self.undetermined += 1
                return
        self.add(*differences)

    def check(self, what: str) -> None:
        """Raise an InputError above `TOLERANCE`."""
        if not max(self.boxes, self.scores) <= TOLERANCE:
            raise InputError(
                f"{what} differ from the detector's: boxes by {self.boxes:.1e} of the image, "
                f"scores by {self.scores:.1e}, more than {TOLERANCE:.0e}. It is not written."
            )


@torch.no_grad()
def compare(
    graph: DetectorGraph | NMSGraph,
    exported: Callable[[Tensor], tuple[Tensor, Tensor]],
    items: Sequence[dict],
) -> Difference:
    """Compare an exported detector with torch.

    Each image is compared as it is, beside its mirror image in a batch of two, and without its
    last quarter in both directions, which is another size. The boxes and scores of the graph are
    also compared with what mmdet's own ``predict`` gives on the image.

    NMS takes the best of overlapping boxes, and between nearly equal scores, as those of a barely
    trained detector, rounding decides. So detections that differ count only if those of the graph
    stay the same with noise of ``NOISE`` on the input. Compare a ``DetectorGraph`` as well.

    Args:
        graph: what was exported.
        exported: runs the file, on ``(B, 3, H, W)``.
        items: what the detector's test pipeline gives for each image.

    Returns:
        The largest differences.

    Raises:
        InputError: a difference is above ``TOLERANCE``.
    """
    worst = Difference()
    for item in items:
        image = item["inputs"].float()
        height, width = image.shape[1:]
        batches = (
            image[None],
            torch.stack([image, image.flip(-1)]),
            image[None, :, : height - height // 4, : width - width // 4],
        )
        for images in batches:
            side = max(images.shape[-2:])
            if isinstance(graph, NMSGraph):
                found = _of_detections(graph(images), exported(images), side)
                worst.add_determined(found, graph, images)
            else:
                (boxes, scores), (own_boxes, own_scores) = exported(images), graph(images)
                worst.add(_largest(boxes - own_boxes) / side, _largest(scores - own_scores))
        worst.check("the exported boxes or scores")
        found = _against_predict(graph, item)
        if isinstance(graph, NMSGraph):
            worst.add_determined(found, graph, image[None])
        else:
            worst.add(*found)
        worst.check("the boxes or scores of the graph")
        worst.number += 1
    return worst


def _largest(difference: Tensor) -> float:
    """0 for none, infinity where one is not a number."""
    if not difference.numel():
        return 0.0
    return float(difference.abs().nan_to_num(nan=float("inf"), posinf=float("inf")).max())


def _of_detections(
    expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], side: int
) -> tuple[float, float]:
    """Largest differences of boxes and of scores over the images of ``NMSGraph``'s outputs."""
    pairs = [_matched(*pair, side) for pair in zip(_split(expected), _split(found))]
    return max(boxes for boxes, _ in pairs), max(scores for _, scores in pairs)


def _split(outputs: tuple[Tensor, Tensor]) -> Iterator[InstanceData]:
    """The detections of each image of ``NMSGraph``'s outputs, without the empty rows."""
    for detections, labels in zip(*outputs):
        there = labels >= 0
        yield InstanceData(
            bboxes=detections[there, :4], scores=detections[there, 4], labels=labels[there]
        )


def _against_predict(graph: DetectorGraph | NMSGraph, item: dict) -> tuple[float, float]:
    """Differences between mmdet's detections on an image and the graph's boxes and scores."""
    core = graph.graph if isinstance(graph, NMSGraph) else graph
    image = item["inputs"].float()[None]
    side = max(image.shape[-2:])
    if isinstance(graph, NMSGraph):
        (mine,) = _split(graph(image))
        return _matched(_predicted(core, item), mine, side)
    with _plain_nms(core.head):  # others move boxes or change scores
        found = _predicted(core, item)
    boxes, scores = (part[0] for part in graph(image))
    if len(found) == 0:
        return 0.0, 0.0
    gaps = torch.cdist(found.bboxes, boxes, p=float("inf")) / side
    differences = (found.scores[:, None] - scores[:, found.labels].T).abs()
    best = torch.maximum(gaps, differences).argmin(dim=1, keepdim=True)
    return _largest(gaps.gather(1, best)), _largest(differences.gather(1, best))


def _predicted(graph: DetectorGraph, item: dict) -> InstanceData:
    """mmdet's detections in pixels of the network input."""
    (sample,) = graph.model.test_step(pseudo_collate([copy.deepcopy(item)]))
    found = sample.pred_instances
    factor = found.bboxes.new_tensor(sample.metainfo["scale_factor"]).repeat(2)
    return InstanceData(bboxes=found.bboxes * factor, scores=found.scores, labels=found.labels)


def _matched(expected: InstanceData, found: InstanceData, side: int) -> tuple[float, float]:
    """Largest differences of detections, each beside the nearest of the other list's."""
    if len(expected) == 0 or len(found) == 0:
        missed = 0.0 if len(expected) == len(found) else float("inf")
        return missed, missed
    gaps = torch.cdist(expected.bboxes, found.bboxes, p=float("inf")) / side
    differences = (expected.scores[:, None] - found.scores[None]).abs()
    other = expected.labels[:, None] != found.labels[None]
    total = torch.maximum(gaps, differences).masked_fill(other, float("inf"))
    worst_boxes, worst_scores = 0.0, 0.0
    for part, gap, difference in ((total, gaps, differences), (total.T, gaps.T, differences.T)):
        best = part.argmin(dim=1, keepdim=True)
        if not torch.isfinite(part.gather(1, best)).all():
            return float("inf"), float("inf")
        worst_boxes = max(worst_boxes, _largest(gap.gather(1, best)))
        worst_scores = max(worst_scores, _largest(difference.gather(1, best)))
    return worst_boxes, worst_scores


@contextmanager
def _plain_nms(head: BaseDenseHead) -> Iterator[None]:
    """Within the block the head suppresses by mmcv's NMS, and no boxes vote."""
    was = head.test_cfg
    head.test_cfg = copy.deepcopy(was)
    head.test_cfg.update(nms=dict(type="nms", iou_threshold=0.6), box_voting=None)
    try:
        yield
    finally:
        head.test_cfg = was
