"""What a one-stage detector of mmdet's says at each location, and which locations it trains.

Shape legend as everywhere (candidate_edges.py): P priors of one image over all levels, C classes.
A head with A anchors a location has P = locations x A.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from mmdet.models.dense_heads import AnchorHead, FCOSHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import InputError
from .assignment.recorded_assignments import recorded_assignments


@dataclass
class DenseOutputs:
    """Predictions of one image.

    Attributes:
        logits: ``(P, C)``.
        bboxes: xyxy in pixels of the input, ``(P, 4)``.
        priors: points ``(P, 2)`` or anchors, xyxy, ``(P, 4)``, in pixels.
        level_sizes: height and width of each level's map.
        strides: of each level, in pixels.
        num_anchors: A.
    """

    logits: Tensor
    bboxes: Tensor
    priors: Tensor
    level_sizes: list[tuple[int, int]]
    strides: list[int]
    num_anchors: int

    def locations(self) -> tuple[Tensor, Tensor]:
        """Centres ``(P, 2)`` and strides ``(P,)`` in pixels; those of several anchors are equal."""
        points = self.priors
        if points.shape[1] == 4:
            points = (points[:, :2] + points[:, 2:]) / 2
        per_level = [h * w * self.num_anchors for h, w in self.level_sizes]
        strides = points.new_tensor(self.strides)
        return points, strides.repeat_interleave(torch.tensor(per_level, device=points.device))

    def cell(self, prior: int) -> tuple[int, int, int]:
        """Level, row and column of a prior."""
        place = prior // self.num_anchors
        for level, (height, width) in enumerate(self.level_sizes):
            if place < height * width:
                return level, place // width, place % width
            place -= height * width
        raise IndexError(f"there is no prior {prior}")

    def maps(self, values: Tensor, reduce: str = "amin") -> list[Tensor]:
        """One value a prior, ``(P,)`` -> one map a level, ``(h, w)``; the best of the anchors."""
        values = getattr(values.view(-1, self.num_anchors), reduce)(dim=1)
        parts = values.split([h * w for h, w in self.level_sizes])
        return [part.view(size) for part, size in zip(parts, self.level_sizes)]


def dense_head(model: nn.Module) -> nn.Module:
    """The model's dense head.

    Raises:
        InputError: a two-stage or query-based detector, or a head with softmax classification.
    """
    head = getattr(model, "bbox_head", None)
    if not isinstance(head, (AnchorHead, AnchorFreeHead)):
        raise InputError(
            f"{type(model).__name__} has no dense head over anchors or points. This tool reads "
            "one-stage detectors such as FCOS, RetinaNet, ATSS, RFAHead and TripleHead."
        )
    if not head.use_sigmoid_cls:
        raise InputError(
            f"{type(head).__name__} classifies by softmax; the losses shown here are those of one "
            "sigmoid a class. Set use_sigmoid=True in its loss_cls."
        )
    return head


@torch.no_grad()
def dense_outputs(model: nn.Module, inputs: Tensor) -> DenseOutputs:
    """One forward pass in eval mode.

    Args:
        model: one of mmdet's single-stage detectors.
        inputs: one preprocessed image, ``(1, 3, H, W)``.
    """
    head = dense_head(model)
    return read_outputs(head, *head(model.extract_feat(inputs))[:2])


def read_outputs(
    head: nn.Module, cls_scores: list[Tensor], bbox_preds: list[Tensor], image: int = 0
) -> DenseOutputs:
    """What the outputs of a head say about one image of their batch.

    Args:
        head: from :func:`dense_head`, in eval mode.
        cls_scores: ``(N, A * C, h, w)`` a level.
        bbox_preds: ``(N, A * 4, h, w)`` a level, or distributions as GFL's.
        image: index in the batch.
    """
    sizes = [tuple(level.shape[-2:]) for level in cls_scores]
    device = cls_scores[0].device
    priors = torch.cat(head.prior_generator.grid_priors(sizes, device=device))
    strides = [s[0] if isinstance(s, tuple) else s for s in head.prior_generator.strides]
    num_anchors = head.num_base_priors
    logits = _flatten(cls_scores, head.cls_out_channels, image)
    channels = len(bbox_preds[0][image]) // num_anchors
    rows, origins = _flatten(bbox_preds, channels, image).float(), priors
    if hasattr(head, "integral") and channels == 4 * (head.reg_max + 1):
        unit = [torch.full((h * w, 1), s, device=device) for (h, w), s in zip(sizes, strides)]
        rows, origins = head.integral(rows) * torch.cat(unit), head.anchor_center(priors)
    elif channels != 4:
        raise InputError(
            f"{type(head).__name__} predicts no plain box at a location; this tool cannot read it."
        )
    bboxes = head.bbox_coder.decode(origins, rows)
    return DenseOutputs(logits.float(), bboxes, priors, sizes, strides, num_anchors)


def _flatten(levels: list[Tensor], channels: int, image: int) -> Tensor:
    """``(N, A * D, h, w)`` a level -> ``(P, D)``, locations in row order, anchors innermost."""
    return torch.cat([level[image].permute(1, 2, 0).reshape(-1, channels) for level in levels])


@torch.no_grad()
def training_positives(
    model: nn.Module, inputs: Tensor, gt_instances: InstanceData, meta: dict
) -> tuple[Tensor, Tensor]:
    """The positives that the head would train on this image now.

    Returns:
        Prior indices and GT indices, ``(E,)`` each; a prior may serve several GTs.
    """
    head = dense_head(model)
    feats = model.extract_feat(inputs)
    if not hasattr(head, "assigner") and isinstance(head, FCOSHead):
        return _fcos_positives(head, feats, gt_instances)
    if not hasattr(head, "assigner"):
        raise InputError(
            f"{type(head).__name__} has no assigner. Its model needs a train_cfg, as in training."
        )
    with recorded_assignments(head) as images, _training(head):
        head.loss_by_feat(*head(feats), [gt_instances], [meta])
    return images[0].prior_inds, images[0].gt_inds


@contextmanager
def _training(head: nn.Module):
    """Some heads of mmdet give boxes in other units while they train."""
    was = head.training
    head.train()
    try:
        yield
    finally:
        head.train(was)


def _fcos_positives(head: FCOSHead, feats, gt_instances) -> tuple[Tensor, Tensor]:
    """FCOS has no assigner; its box targets say which GT a location serves."""
    sizes = [level.shape[-2:] for level in head(feats)[0]]
    points = head.prior_generator.grid_priors(sizes, device=feats[0].device)
    labels, distances = head.get_targets(points, [gt_instances])
    prior_inds = (torch.cat(labels) < head.num_classes).nonzero().squeeze(1)
    # With norm_on_bbox the targets are in strides.
    if head.norm_on_bbox:
        distances = [level * stride for level, stride in zip(distances, head.strides)]
    boxes = head.bbox_coder.decode(torch.cat(points), torch.cat(distances))[prior_inds]
    if len(prior_inds) == 0:
        return prior_inds, prior_inds
    return prior_inds, torch.cdist(boxes, gt_instances.bboxes.float()).argmin(dim=1)
