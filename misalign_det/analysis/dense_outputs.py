"""A one-stage detector's outputs per location, and the locations that it would train.

Shapes: ``P`` priors of one image over all levels, ``C`` classes, ``G`` GTs. A head with ``A``
anchors per location has ``P = A * number of locations``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from mmdet.models.dense_heads import (
    AnchorHead,
    CondInstBboxHead,
    FCOSHead,
    GFLHead,
    PAAHead,
    RPNHead,
    RTMDetInsHead,
    TOODHead,
)
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmengine.structures import InstanceData
from torch import Tensor

from ..engine.step_state import at_counters, training_counters
from ..errors import InputError
from .assignment.recorded_assignments import recorded_assignments

# The heads whose way from outputs to boxes read_outputs follows, with all that inherit it.
_DECODED = (
    BaseDenseHead, CondInstBboxHead, GFLHead, PAAHead, RPNHead, RTMDetInsHead, TOODHead,
)  # fmt: skip


@dataclass
class DenseOutputs:
    """Predictions of one image.

    Attributes:
        logits: class logits, ``(P, C)``.
        bboxes: predicted boxes, xyxy in pixels of the network input, ``(P, 4)``.
        priors: points ``(P, 2)`` or xyxy anchors ``(P, 4)``, in pixels of the network input.
        level_sizes: height and width of each level's map.
        strides: per level, in pixels.
        num_anchors: A.
    """

    logits: Tensor
    bboxes: Tensor
    priors: Tensor
    level_sizes: list[tuple[int, int]]
    strides: list[int]
    num_anchors: int

    def locations(self) -> tuple[Tensor, Tensor]:
        """Centres ``(P, 2)`` and strides ``(P,)`` of the priors, in pixels."""
        points = self.priors
        if points.shape[1] == 4:
            points = (points[:, :2] + points[:, 2:]) / 2
        per_level = [h * w * self.num_anchors for h, w in self.level_sizes]
        strides = points.new_tensor(self.strides)
        return points, strides.repeat_interleave(torch.tensor(per_level, device=points.device))

    def cell(self, prior: int) -> tuple[int, int, int]:
        """Level, row and column of a prior.

        Raises:
            IndexError: there is no such prior.
        """
        location = prior // self.num_anchors
        for level, (height, width) in enumerate(self.level_sizes):
            if location < height * width:
                return level, location // width, location % width
            location -= height * width
        raise IndexError(f"there is no prior {prior}")

    def maps(self, values: Tensor, reduce: str = "amin") -> list[Tensor]:
        """Values per prior as one map per level.

        Args:
            values: ``(P,)``.
            reduce: method of ``Tensor`` that reduces the anchors of a location to one value.

        Returns:
            ``(h, w)`` per level.
        """
        values = getattr(values.view(-1, self.num_anchors), reduce)(dim=1)
        parts = values.split([h * w for h, w in self.level_sizes])
        return [part.view(size) for part, size in zip(parts, self.level_sizes)]


def dense_head(
    model: SingleStageDetector, needs: Literal["locations", "nms"] = "locations"
) -> BaseDenseHead:
    """The dense head of a one-stage detector.

    Args:
        model: one of mmdet's detectors.
        needs: what the caller uses. ``'locations'``: sigmoid class scores and a box per point or
            anchor. ``'nms'``: ``predict_by_feat`` and a ``test_cfg`` with ``nms``.

    Raises:
        InputError: the detector is not a one-stage detector (two-stage and query-based detectors
            are not), or its head lacks what is needed. The message says what is missing.
    """
    head = getattr(model, "bbox_head", None)
    if not isinstance(head, BaseDenseHead) or (
        needs == "nms" and not isinstance(model, SingleStageDetector)
    ):
        raise InputError(f"{type(model).__name__} is not a one-stage detector with a dense head.")
    name = type(head).__name__
    if needs == "nms":
        if "nms" not in (head.test_cfg or {}):
            raise InputError(f"{name} has no test_cfg.nms: nothing is suppressed.")
        return head
    if not isinstance(head, (AnchorHead, AnchorFreeHead)):
        raise InputError(
            f"{name} is not a head over anchors or points (AnchorHead or AnchorFreeHead), as those "
            "of RetinaNet, FCOS, ATSS, RFAHead and TripleHead are."
        )
    if not head.use_sigmoid_cls:
        raise InputError(
            f"{name} classifies by softmax; the losses shown here are those of one sigmoid per "
            "class. Set use_sigmoid=True in its loss_cls."
        )
    return head


def level_strides(head: BaseDenseHead) -> list[int]:
    """Stride of each level in pixels; of a pair, the first."""
    return [s[0] if isinstance(s, tuple) else s for s in head.prior_generator.strides]


@torch.no_grad()
def dense_outputs(model: SingleStageDetector, inputs: Tensor) -> DenseOutputs:
    """The outputs of one forward pass.

    Args:
        model: a one-stage detector in eval mode.
        inputs: one preprocessed image, ``(1, 3, H, W)``.

    Raises:
        InputError: the head is none that :func:`dense_head` or :func:`read_outputs` takes.
    """
    head = dense_head(model)
    cls_scores, bbox_preds = head(model.extract_feat(inputs))[:2]
    return read_outputs(head, cls_scores, bbox_preds)


def read_outputs(
    head: BaseDenseHead, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], image: int = 0
) -> DenseOutputs:
    """One image of a head's outputs.

    Args:
        head: from :func:`dense_head`, in eval mode.
        cls_scores: ``(N, A * C, h, w)`` per level.
        bbox_preds: ``(N, A * 4, h, w)`` per level, or GFL's distributions.
        image: index in the batch.

    Raises:
        InputError: the head predicts neither four values per box nor GFL's distributions, or makes
            boxes of them in a way of its own, as FoveaHead and GARetinaHead do.
    """
    own_way = type(head)._predict_by_feat_single
    if not any(own_way is known._predict_by_feat_single for known in _DECODED):
        raise InputError(
            f"{type(head).__name__} decodes its boxes in a way of its own "
            "(_predict_by_feat_single), which cannot be read per location. Heads that inherit it "
            "from FCOSHead, ATSSHead, GFLHead or TOODHead can."
        )
    sizes = [(int(level.shape[-2]), int(level.shape[-1])) for level in cls_scores]
    device = cls_scores[0].device
    priors = torch.cat(head.prior_generator.grid_priors(sizes, device=device))
    strides = level_strides(head)
    num_anchors = head.num_base_priors
    logits = _flatten(cls_scores, head.cls_out_channels, image).float()
    channels = len(bbox_preds[0][image]) // num_anchors
    rows, origins = _flatten(bbox_preds, channels, image).float(), priors
    if isinstance(head, TOODHead):
        # Its outputs are probabilities and, after its alignment, boxes in strides.
        unit = [torch.full((h * w, 1), s, device=device) for (h, w), s in zip(sizes, strides)]
        bboxes, logits = rows * torch.cat(unit), logits.double().logit(1e-12).float()
        return DenseOutputs(logits, bboxes, priors, sizes, strides, num_anchors)
    if hasattr(head, "integral") and channels == 4 * (head.reg_max + 1):
        unit = [torch.full((h * w, 1), s, device=device) for (h, w), s in zip(sizes, strides)]
        rows, origins = head.integral(rows) * torch.cat(unit), head.anchor_center(priors)
    elif channels != 4:
        raise InputError(f"{type(head).__name__} predicts {channels} values per box, not four.")
    bboxes = head.bbox_coder.decode(origins, rows)
    return DenseOutputs(logits, bboxes, priors, sizes, strides, num_anchors)


def _flatten(levels: Sequence[Tensor], channels: int, image: int) -> Tensor:
    """``(N, A * D, h, w)`` per level -> ``(P, D)``, locations in row order, anchors innermost."""
    return torch.cat([level[image].permute(1, 2, 0).reshape(-1, channels) for level in levels])


@torch.no_grad()
def training_positives(
    model: SingleStageDetector, inputs: Tensor, gt_instances: InstanceData, meta: dict
) -> tuple[Tensor, Tensor]:
    """The positives of a training step on one image with the present weights.

    TOOD's are those of its task-aligned assigner, as from ``initial_epoch`` on.

    Args:
        model: a one-stage detector with the ``train_cfg`` of its training.
        inputs: one preprocessed image, ``(1, 3, H, W)``.
        gt_instances: ``bboxes`` ``(G, 4)``, xyxy in pixels of the network input, and ``labels``
            ``(G,)``.
        meta: mmdet's metainfo of the image.

    Returns:
        Prior indices and GT indices, ``(E,)`` each; a prior may be positive for several GTs.

    Raises:
        InputError: :func:`dense_head` refuses the model, or its head has no assigner, or does not
            call it.
    """
    head = dense_head(model)
    feats = model.extract_feat(inputs)
    if not hasattr(head, "assigner") and isinstance(head, FCOSHead):
        return _fcos_positives(head, feats, gt_instances)
    if not hasattr(head, "assigner"):
        raise InputError(
            f"{type(head).__name__} has no assigner. Its model needs a train_cfg, as in training."
        )
    counters = training_counters()
    if isinstance(head, TOODHead):  # from this epoch on it uses its own assigner
        counters["epoch"] = head.initial_epoch
    with recorded_assignments(head) as images, _training(head), at_counters(counters):
        head.loss_by_feat(*head(feats), [gt_instances], [meta])
    if not images:
        raise InputError(
            f"{type(head).__name__} did not call its assigner, so its positives are not known: "
            "it has none for an image without objects, or chooses positives in a way of its own."
        )
    return images[0].prior_inds, images[0].gt_inds


@contextmanager
def _training(head: BaseDenseHead) -> Iterator[None]:
    """Training mode within the block: some of mmdet's heads give boxes in other units there."""
    was = head.training
    head.train()
    try:
        yield
    finally:
        head.train(was)


def _fcos_positives(
    head: FCOSHead, feats: tuple[Tensor, ...], gt_instances: InstanceData
) -> tuple[Tensor, Tensor]:
    """FCOS has no assigner: the GT of a positive is the one whose box is its regression target."""
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
