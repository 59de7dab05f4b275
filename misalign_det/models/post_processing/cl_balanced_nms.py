"""CLBalancedNMS: classification-localisation-balanced NMS (CL-balanced NMS, eq. 6 and 7).

The CPU path, in NumPy. :mod:`.nms_match` forms the clusters, :mod:`.nms_cuda` takes CUDA tensors.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmcv.ops import batched_nms
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...utils.validation import check_choice
from .nms_cuda import NON_FINITE, nms_on_device
from .nms_match import suppressors

mmcv_nms: Any = import_module("mmcv.ops.nms")  # `mmcv.ops.nms` as an attribute is the function

CLOSENESS_MODES = ("gaussian", "linear", "literal")
OUTPUT_SCORES = ("own", "best", "selection")


@TASK_UTILS.register_module()
class CLBalancedNMS:
    """Classification-localisation-balanced NMS (CL-balanced NMS, eq. 6 and 7).

    Greedy NMS comes first; of equal scores the first one counts. A kept box and the boxes that it
    suppresses are a cluster. Its centre is the mean of the boxes' centres, weighted by the softmax
    of their scores (eq. 6). The selection score of a box is its own score plus ``gamma`` times its
    closeness to that centre (eq. 7). Of each cluster the box of the largest selection score is
    output, in place of the greedily kept one.

    It can be used in two ways. mmcv's ``batched_nms`` finds an NMS by its name in ``mmcv.ops.nms``
    and calls it as a function, with the options of the config on every call: this is
    :func:`cl_balanced_nms`, which stands there under the name ``CLBalancedNMS`` and calls this
    class. ``TASK_UTILS.build`` makes the object for code that wants to build it once.

    CUDA tensors stay on their device, with the same results as on the CPU, and with no more
    host-device synchronisations than ``mmcv.ops.nms``. Memory is that of ``mmcv.ops.nms`` too: one
    bit per pair of boxes.

    Args:
        iou_threshold: IoU above which the better box suppresses the other, in (0, 1].
        offset, score_threshold, max_num: as in ``mmcv.ops.nms``.
        gamma: weight of the closeness, at least 0. With 0 the result is that of ``mmcv.ops.nms``,
            which leaves the order of equal scores to torch's sort.
        sigma: length scale of the ``'gaussian'``, in diagonals of the greedily kept box, positive.
            Boxes of one cluster overlap, so distances of some hundredths matter. The defaults of
            gamma and sigma were best on the validation split of BCCD over 15 trainings of mmdet's
            detectors (configs/bccd.md).
        closeness: of a box whose centre is at distance ``d`` from the cluster's: ``'gaussian'``:
            ``exp(-(d / (sigma * diagonal))^2)``; ``'linear'``: ``1 - d / diagonal``;
            ``'literal'``: ``d / diagonal``, the bare sum of eq. 7, which rewards outliers.
        output_score: score of an output box: its ``'own'``, the ``'best'`` of its cluster, or the
            ``'selection'`` score (above 1 with a large gamma).

    Raises:
        ValueError: an option is out of range.

    Example:
        One-stage detectors have the NMS in ``model.test_cfg.nms``, two-stage detectors in
        ``model.test_cfg.rcnn.nms``::

            _base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
            custom_imports = dict(imports=['misalign_det'])
            model = dict(test_cfg=dict(nms=dict(
                _delete_=True, type='CLBalancedNMS', iou_threshold=0.6)))

        As an object:

        >>> import torch
        >>> from mmdet.registry import TASK_UTILS
        >>> import misalign_det
        >>> nms = TASK_UTILS.build(dict(type='CLBalancedNMS', iou_threshold=0.6))
        >>> boxes = torch.tensor([[0., 0., 40., 40.], [1., 0., 41., 40.], [90., 0., 99., 9.]])
        >>> dets, keep = nms(boxes, torch.tensor([0.9, 0.6, 0.7]))
        >>> keep
        tensor([0, 2])
    """

    def __init__(
        self,
        iou_threshold: float,
        offset: int = 0,
        score_threshold: float = 0,
        max_num: int = -1,
        gamma: float = 0.3,
        sigma: float = 0.05,
        closeness: str = "gaussian",
        output_score: str = "own",
    ) -> None:
        check_choice("closeness", closeness, CLOSENESS_MODES)
        check_choice("output_score", output_score, OUTPUT_SCORES)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must be in (0, 1], not {iou_threshold}.")
        if not (0 <= gamma < math.inf and 0 < sigma < math.inf):
            raise ValueError(
                f"gamma must be at least 0 and sigma positive, not {gamma} and {sigma}."
            )
        self.iou_threshold = iou_threshold
        self.offset = offset
        self.score_threshold = score_threshold
        self.max_num = max_num
        self.gamma = gamma
        self.sigma = sigma
        self.closeness = closeness
        self.output_score = output_score

    def __call__(
        self, boxes: Tensor, scores: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Suppress boxes, with ``labels`` class by class.

        Args:
            boxes: xyxy in pixels, ``(n, 4)``.
            scores: in [0, 1], ``(n,)``.
            labels: classes of the boxes, ``(n,)``; boxes of different classes do not suppress one
                another. Then it is ``mmcv.ops.batched_nms`` with this NMS. By default all boxes
                are of one class.

        Returns:
            ``(dets, keep)`` as ``mmcv.ops.nms``: ``(k, 5)`` boxes with score, descending in score,
            and their indices ``(k,)`` in int64.

        Raises:
            ValueError: rotated boxes, NaN or infinite input.
        """
        if labels is not None and len(boxes):  # mmcv's batched_nms takes no empty input
            return batched_nms(boxes, scores, labels, dict(type=cl_balanced_nms, **vars(self)))
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(
                f"CLBalancedNMS takes axis-aligned boxes (n, 4), not {tuple(boxes.shape)}. For "
                "rotated boxes use nms=dict(type='nms_rotated', ...)."
            )
        # With gamma 0 the best box of a cluster is the greedily kept one.
        plain = self.gamma == 0 and self.output_score != "selection"
        if boxes.is_cuda:
            return nms_on_device(boxes, scores, plain=plain, **vars(self))
        corners, own = (part.detach().float().cpu().numpy() for part in (boxes, scores))
        _check_finite(corners, own)
        if plain:
            return mmcv_nms.nms(
                boxes, scores, self.iou_threshold, self.offset, self.score_threshold, self.max_num
            )
        order = _descending(own, self.score_threshold)
        corners, own = corners.take(order, 0), own.take(order)
        suppressor = suppressors(corners, self.iou_threshold, self.offset)
        distance = _relative_distance(corners, own, suppressor)
        selection = _selection_scores(own, distance, self.gamma, self.sigma, self.closeness)
        best = _best_of_each(selection, suppressor)
        if self.output_score == "selection":
            out = selection[best]
        else:
            out = own[best if self.output_score == "own" else suppressor[best]]
        by_score = (-out).argsort(kind="stable")[: self.max_num if self.max_num > 0 else None]
        best = best.take(by_score)
        keep = torch.from_numpy(order.take(best)).to(boxes.device)
        found = np.empty((len(best), 5), np.float32)
        found[:, :4], found[:, 4] = corners.take(best, 0), out.take(by_score)
        dets = torch.from_numpy(found).to(boxes)
        if boxes.requires_grad:  # mmcv's nms passes the gradient on, too
            dets = torch.cat([boxes[keep], dets[:, 4:]], dim=1)
        return dets, keep


def cl_balanced_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    offset: int = 0,
    score_threshold: float = 0,
    max_num: int = -1,
    gamma: float = 0.3,
    sigma: float = 0.05,
    closeness: str = "gaussian",
    output_score: str = "own",
) -> tuple[Tensor, Tensor]:
    """:class:`CLBalancedNMS` as the function that mmcv's ``batched_nms`` calls.

    In a ``test_cfg`` it is ``type='CLBalancedNMS'``; a pure Python config may name the function:
    ``type=cl_balanced_nms``.

    Args:
        boxes: xyxy in pixels, ``(n, 4)``.
        scores: in [0, 1], ``(n,)``.
        iou_threshold, offset, score_threshold, max_num, gamma, sigma, closeness, output_score: see
            :class:`CLBalancedNMS`.

    Returns:
        ``(dets, keep)``: ``(k, 5)`` boxes with score, descending in score, and their indices
        ``(k,)`` in int64.

    Raises:
        ValueError: rotated boxes, NaN or infinite input, an option out of range.
    """
    nms = CLBalancedNMS(
        iou_threshold, offset, score_threshold, max_num, gamma, sigma, closeness, output_score
    )
    return nms(boxes, scores)


def check_nms(config: Mapping | None) -> None:
    """Check the options of a ``test_cfg.nms`` before a box is there, if they are this NMS's.

    Args:
        config: of any NMS; None for none.

    Raises:
        ValueError: an option is unknown, missing or out of range.
    """
    if not config or config.get("type") not in ("CLBalancedNMS", cl_balanced_nms):
        return
    # Of mmcv's batched_nms.
    others = ("type", "class_agnostic", "split_thr")
    try:
        CLBalancedNMS(**{key: value for key, value in config.items() if key not in others})
    except TypeError as error:
        raise ValueError(f"nms of type CLBalancedNMS: {error}") from error


# mmcv's batched_nms finds an NMS by its name in mmcv.ops.nms. This is the one place where the
# package adds a name to another package.
mmcv_nms.CLBalancedNMS = cl_balanced_nms


def _descending(scores: np.ndarray, score_threshold: float) -> np.ndarray:
    """Indices of the scores above the threshold in descending order, stable, ``(n,)``."""
    if score_threshold > 0:
        (chosen,) = (scores > score_threshold).nonzero()
        return chosen.take(_descending(scores.take(chosen), 0))
    order = (-scores).argsort()  # faster than the stable sort
    ranked = scores.take(order)
    if np.count_nonzero(ranked[1:] == ranked[:-1]):
        order = (-scores).argsort(kind="stable")
    return order


def _relative_distance(boxes: np.ndarray, scores: np.ndarray, suppressor: np.ndarray) -> np.ndarray:
    """Distance of each box's centre from that of its cluster (CL-balanced NMS, eq. 6).

    The cluster's centre is the mean of the boxes' centres, weighted by the softmax of their scores.
    All is relative to the kept box, so that coordinates far from the origin keep their precision.
    It is computed in float64 and rounded at the end, so that a GPU, which sums in another order,
    finds the same.

    Args:
        boxes: xyxy in pixels, ``(n, 4)`` in float32.
        scores: ``(n,)`` in float32.
        suppressor: index of the kept box of each box's cluster, ``(n,)``.

    Returns:
        In diagonals of the kept box, ``(n,)`` in float32.
    """
    corners = boxes.view(np.complex64)  # x + iy: lengths and differences of both at once
    kept = corners.take(suppressor, 0)
    shift = corners - kept
    shift = shift[:, 0] + shift[:, 1]  # twice the centre's
    weights = np.exp(scores - scores.take(suppressor), dtype=np.float64)
    total = np.bincount(suppressor, weights).take(suppressor)
    moment = weights * shift
    middle = np.empty(len(shift), np.complex128)
    middle.real = np.bincount(suppressor, moment.real).take(suppressor)
    middle.imag = np.bincount(suppressor, moment.imag).take(suppressor)
    diagonal = np.maximum(np.abs((kept[:, 1] - kept[:, 0]).astype(np.complex128)), 1e-6)
    return (np.abs(shift - middle / total) / (2 * diagonal)).astype(np.float32)


def _best_of_each(values: np.ndarray, suppressor: np.ndarray) -> np.ndarray:
    """Index of each cluster's largest value, ``(k,)``, in the order of the kept boxes.

    Of equal values the first counts.
    """
    peaks = np.full(len(values), -np.inf, values.dtype)
    np.maximum.at(peaks, suppressor, values)
    (indices,) = (values == peaks.take(suppressor)).nonzero()
    first = np.empty(len(values), np.int64)
    indices = indices[::-1]  # of several that are written to one element, the last one stays
    first[suppressor.take(indices)] = indices
    return first[peaks > -np.inf]


def _selection_scores(
    scores: np.ndarray, distance: np.ndarray, gamma: float, sigma: float, closeness: str
) -> np.ndarray:
    """Selection score of each box (CL-balanced NMS, eq. 7), ``(n,)`` in float32.

    Args:
        scores: ``(n,)`` in float32.
        distance: from the cluster's centre in diagonals of the kept box, ``(n,)`` in float32.
        gamma, sigma, closeness: see :class:`CLBalancedNMS`.
    """
    gamma, sigma = float(np.float32(gamma)), float(np.float32(sigma))  # Triton passes float32
    value = distance.astype(np.float64)
    if closeness == "gaussian":
        value /= sigma
        value *= -value
        np.exp(value, out=value)
    elif closeness == "linear":
        value = 1 - value
    value *= gamma
    value += scores
    return value.astype(np.float32)


def _check_finite(boxes: np.ndarray, scores: np.ndarray) -> None:
    # One product shows non-finite values. It overflows for coordinates beyond 1e18, too.
    if not math.isfinite(np.vdot(boxes, boxes) + np.vdot(scores, scores)) and not (
        np.isfinite(boxes).all() and np.isfinite(scores).all()
    ):
        raise ValueError(NON_FINITE)
