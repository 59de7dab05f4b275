"""A one-stage detector as a function of tensors, which exporters can trace.

mmdet's own ``predict`` loops over images and selects by value, so that no exporter takes it. Here
every location gives its box and its scores, for a whole batch of any size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import GFLHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from torch import Tensor, nn

from ...errors import InputError
from ...models import LossAwareFCOSHead
from ...models.layers import AutoDeformConv2d
from ...utils.compiler import exporting

# Heads whose boxes are decoded by one of these two methods of mmdet are supported.
_DECODED_HERE = (BaseDenseHead._predict_by_feat_single, GFLHead._predict_by_feat_single)


class Level(NamedTuple):
    """Predictions of one pyramid level for a batch.

    Attributes:
        boxes: xyxy in pixels of the input, ``(B, n, 4)``.
        class_scores: by which mmdet selects what reaches NMS, ``(B, n, C)``.
        scores: by which NMS and the detector rank, ``(B, n, C)``.
    """

    boxes: Tensor
    class_scores: Tensor
    scores: Tensor


class DetectorGraph(nn.Module):
    """Images to the boxes and scores of all locations.

    Inside are what the detector's data preprocessor does (channel order, mean and standard
    deviation, padding to a multiple of its divisor), the network, the decoding of the boxes and the
    head's score. Outside are the steps of the test pipeline, that is, the resizing.

    Args:
        model: a one-stage detector in eval mode, from
            :func:`~misalign_det.apis.detector.load_detector`. It is shared, not copied.

    Raises:
        InputError: the detector cannot be exported; the message names the part.

    Shapes: ``(B, 3, H, W)`` float32, 0 to 255, in the channel order of the loaded image (BGR) ->
    boxes ``(B, N, 4)``, xyxy in pixels of the input and within it, and scores ``(B, N, C)``.
    """

    def __init__(self, model: SingleStageDetector) -> None:
        super().__init__()
        check_exportable(model)
        self.model = model
        self.head: BaseDenseHead = model.bbox_head
        # An export refines everywhere; so does the reference that it is compared with.
        if hasattr(self.head, "sparse_refinement"):
            self.head.sparse_refinement = False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.levels(images)
        boxes = torch.cat([level.boxes for level in levels], dim=1)
        return boxes, torch.cat([level.scores for level in levels], dim=1)

    def levels(self, images: Tensor) -> list[Level]:
        """The predictions of each level.

        Args:
            images: see the class.
        """
        outs = self.head(self.model.extract_feat(self.preprocessed(images)))
        logits, regressions, factors = (*outs, None)[:3]
        sizes = [tuple(level.shape[-2:]) for level in logits]
        priors = self.head.prior_generator.grid_priors(
            sizes, dtype=logits[0].dtype, device=logits[0].device
        )
        batch, _, height, width = images.shape
        found = []
        for i, level in enumerate(logits):
            class_scores = self._class_scores(rows(level, batch, self.head.cls_out_channels))
            factor = None if factors is None else rows(factors[i], batch, 1).sigmoid()
            scores = self._scores(class_scores, factor)
            boxes = self._decoded(i, regressions[i], priors[i], batch)
            found.append(Level(self._within(boxes, height, width), class_scores, scores))
        return found

    def preprocessed(self, images: Tensor) -> Tensor:
        """Images as the network's layers take them, ``(B, 3, H', W')``.

        Args:
            images: see the class.
        """
        part = self.model.data_preprocessor
        if part._channel_conversion:
            images = images.flip(1)
        if part._enable_normalize:
            images = (images - part.mean) / part.std
        height, width = (_multiple(size, part.pad_size_divisor) for size in images.shape[-2:])
        missing = (0, width - images.shape[-1], 0, height - images.shape[-2])
        return F.pad(images, missing, value=part.pad_value)

    def _class_scores(self, logits: Tensor) -> Tensor:
        if self.head.use_sigmoid_cls:
            return logits.sigmoid()
        return logits.softmax(-1)[..., :-1]

    def _scores(self, class_scores: Tensor, factor: Tensor | None) -> Tensor:
        if isinstance(self.head, LossAwareFCOSHead):
            return self.head.detection_scores(class_scores, factor)
        return class_scores if factor is None else class_scores * factor

    def _decoded(self, level: int, regression: Tensor, priors: Tensor, batch: int) -> Tensor:
        head = self.head
        if isinstance(head, GFLHead):
            values = rows(regression, batch, 4 * (head.reg_max + 1))
            distances = head.integral(values.flatten(0, 1)) * head.prior_generator.strides[level][0]
            priors = head.anchor_center(priors)
        else:
            distances = rows(regression, batch, 4).flatten(0, 1)
        # mmdet's coders take the rows of one image: here the batch is one long image.
        joined = priors.expand(batch, *priors.shape).flatten(0, 1)
        return head.bbox_coder.decode(joined, distances).reshape(batch, -1, 4)

    def _within(self, boxes: Tensor, height: int, width: int) -> Tensor:
        if not getattr(self.head.bbox_coder, "clip_border", True):
            return boxes
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
        return torch.stack([x, y], dim=-1).flatten(-2)


def rows(level: Tensor, batch: int, channels: int) -> Tensor:
    """``(B, A * D, h, w)`` -> ``(B, h * w * A, D)``, locations in row order, anchors innermost."""
    return level.permute(0, 2, 3, 1).reshape(batch, -1, channels)


def _multiple(size: int, divisor: int) -> int:
    """``size`` rounded up to a multiple of ``divisor``.

    In ``torch.export`` the number of blocks is a new symbol. Sizes further down are then simple
    multiples of it; as functions of ``size`` they grow with every layer, and an export takes hours.
    """
    if torch.jit.is_tracing() or not exporting():
        return (size + divisor - 1) // divisor * divisor
    tensor = torch.full((), size, dtype=torch.int64) + (divisor - 1)
    blocks = tensor.div(divisor, rounding_mode="floor").item()
    torch._check(blocks > 0)
    return blocks * divisor  # type: ignore[return-value]  # a SymInt


@contextmanager
def fixed_padding(model: nn.Module) -> Iterator[None]:
    """Within the block, mmcv's adaptively padded convolutions pad by numbers known beforehand.

    They pad so that a map of ``n`` cells gives ``ceil(n / stride)``. Behind a padding of the image
    to a multiple of all strides, the amounts do not depend on the size; no exporter sees that.

    Args:
        model: its layers are changed within the block.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Conv2dAdaptivePadding)]
    for layer in layers:
        layer.forward = partial(_padded_convolution, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _padded_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    total = [
        max((kernel - 1) * dilation + 1 - stride, 0)
        for kernel, dilation, stride in zip(layer.kernel_size, layer.dilation, layer.stride)
    ]
    (top, bottom), (left, right) = ((size // 2, size - size // 2) for size in total)
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def check_exportable(model: nn.Module) -> None:
    """Refuse a detector that :class:`DetectorGraph` cannot represent.

    Args:
        model: any of mmdet's detectors.

    Raises:
        InputError: names the part at fault.
    """
    head = getattr(model, "bbox_head", None)
    name = type(model).__name__
    if not isinstance(model, SingleStageDetector) or not isinstance(head, BaseDenseHead):
        raise InputError(
            f"{name} cannot be exported: it is not a one-stage detector with a dense head."
        )
    method = getattr(type(head), "_predict_by_feat_single", None)
    taken = isinstance(head, LossAwareFCOSHead) or (
        type(head).predict_by_feat is BaseDenseHead.predict_by_feat
    )
    if not taken or method not in _DECODED_HERE or not hasattr(head, "use_sigmoid_cls"):
        raise InputError(
            f"{type(head).__name__} cannot be exported: it makes boxes and scores in a way of its "
            "own. Heads that use mmdet's common one can, as those of RetinaNet, FCOS, ATSS, GFL "
            "and of this package."
        )
    if type(model.data_preprocessor) is not DetDataPreprocessor:
        kind = type(model.data_preprocessor).__name__
        raise InputError(f"{kind} cannot be exported; DetDataPreprocessor can.")
    for path, layer in model.named_modules():
        mmcv_only = isinstance(layer, DeformConv2d | ModulatedDeformConv2d)
        if mmcv_only and not isinstance(layer, AutoDeformConv2d):
            raise InputError(
                f"{path} cannot be exported: {type(layer).__name__} calls mmcv's deformable "
                "convolution, which exporters do not know. The deformable layers of this "
                "package's heads can be exported."
            )


def example_input(sizes: Sequence[int] = (2, 96, 128)) -> Tensor:
    """A batch to trace with; ``sizes`` are B, H and W."""
    batch, height, width = sizes
    return torch.zeros(batch, 3, height, width)
