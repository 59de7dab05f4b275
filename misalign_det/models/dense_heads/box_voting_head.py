"""Box voting after NMS in a dense head: BoxVotingMixin, and BoxVotingHead for heads of mmdet.

mmcv's ``batched_nms`` takes scores and indices from an NMS, not its boxes. Therefore the vote comes
after it, in the head, which has the boxes before NMS too.
"""

import copy
import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmdet.models.dense_heads import CascadeRPNHead, MaskFormerHead, RPNHead, YOLACTHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from ...utils import find_type
from ..post_processing.box_voting import box_voting, check_box_voting
from ..post_processing.cl_balanced_nms import check_nms
from .head_config_checks import refuse_assigner

if TYPE_CHECKING:  # what the mixin is combined with
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead as _Head
else:
    _Head = object

# They inherit the method that votes and do not call it, or call it for other things than boxes.
CANNOT_VOTE = (RPNHead, CascadeRPNHead, YOLACTHead, MaskFormerHead)


class BoxVotingMixin(_Head):
    """Base class ahead of a dense head: ``test_cfg.box_voting`` moves the boxes that NMS keeps.

    Each becomes the mean of the boxes of its class before NMS, weighted by score and overlap; see
    :func:`~misalign_det.models.post_processing.box_voting.box_voting` and its options. It goes with
    any NMS. Scores, labels, the number of boxes and training are the same as without it, and so
    is everything where ``box_voting`` is absent or None. The heads of this package have it.

    With ``with_nms=False`` there is no vote. With test-time augmentation each view votes; mmdet's
    merge of the views does not.

    Args:
        *args, **kwargs: passed to the head.

    Raises:
        ValueError: ``test_cfg.box_voting`` has other keys or values than the options, or
            ``test_cfg.nms`` others than ``CLBalancedNMS`` takes, if it is one; or the head is a
            PAAHead that votes by itself (``score_voting=True``, its default).

    Example:
        A head of your own::

            @MODELS.register_module()
            class MyVotingHead(BoxVotingMixin, MyHead):
                pass
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Errors now and not after the training.
        self._box_voting_options(self.test_cfg or {})
        check_nms((self.test_cfg or {}).get("nms"))

    def _box_voting_options(self, cfg: Mapping) -> Mapping | None:
        options = cfg.get("box_voting")
        check_box_voting(options)
        if options is not None and getattr(self, "with_score_voting", False):
            raise ValueError(
                f"{type(self).__name__} votes by itself and would vote twice: set "
                "bbox_head.score_voting=False, or leave out test_cfg.box_voting."
            )
        return options

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: ConfigDict,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict | None = None,
    ) -> InstanceData:
        """mmdet's method of this name, then the vote.

        Args:
            results: boxes of one image before NMS.
            cfg: test config.
            rescale: whether the boxes are returned in pixels of the original image.
            with_nms: without NMS there is no vote.
            img_meta: metainfo of the image.
        """
        options = self._box_voting_options(cfg)
        if options is None or not with_nms:
            return super()._bbox_post_process(results, cfg, rescale, with_nms, img_meta)
        # In two calls: what NMS gets, in the coordinates and with the scores of the detections,
        # then the NMS.
        rest = copy.copy(cfg)
        if results.scores.ndim == 2:  # PAAHead's, of all classes; it has no with_nms=False
            rest.update(nms=None, max_per_img=-1)
            # It rescales `results` in place, so that the second call must not.
            candidates = super()._bbox_post_process(results, rest, rescale, True, img_meta)
            found = super()._bbox_post_process(results, cfg, False, True, img_meta)
        else:
            candidates = super()._bbox_post_process(results, cfg, rescale, False, img_meta)
            # Small boxes are gone; looking for them again would synchronise host and device.
            rest.update(min_bbox_size=-1)
            found = super()._bbox_post_process(candidates, rest, False, True, img_meta)
        bboxes = found.bboxes
        voted = box_voting(
            get_box_tensor(bboxes),
            found.labels,
            get_box_tensor(candidates.bboxes),
            candidates.scores,
            candidates.labels,
            **options,
        )
        found.bboxes = type(bboxes)(voted) if isinstance(bboxes, BaseBoxes) else voted
        return found


@MODELS.register_module()
class BoxVotingHead(BoxVotingMixin):
    """One of mmdet's dense heads with :class:`BoxVotingMixin`: box voting after NMS.

    What is built is an instance of the head's class, with the same arguments and the same keys of
    its ``state_dict``: checkpoints with and without voting go both ways. The vote's options are
    ``test_cfg.box_voting``; without it nothing changes. The heads of this package read
    ``test_cfg.box_voting`` by themselves. Two-stage detectors are not supported: RPN heads are
    refused, and RoI heads have an NMS of their own.

    Args:
        *args: passed to the head.
        head_type: the head: a registered name, or a class. It must pass its boxes to mmdet's
            ``_bbox_post_process``: of the dense heads with NMS, those do not that predict masks
            or that decode boxes in other ways, as GARetinaHead and CornerHead.
        **kwargs: passed to the head.

    Raises:
        ValueError: ``head_type`` is missing, unknown, or of a head that cannot vote; see also
            :class:`BoxVotingMixin`.

    Example::

        _base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['misalign_det'])
        model = dict(
            bbox_head=dict(type='BoxVotingHead', head_type='ATSSHead'),
            test_cfg=dict(box_voting=dict(sigma=0.025, iou_threshold=0.01)))
    """

    def __new__(cls, *args: Any, head_type: Any = None, **kwargs: Any) -> "BoxVotingHead":
        return _blank(find_type(head_type, MODELS) or head_type)

    def __init__(self, *args: Any, head_type: Any = None, **kwargs: Any) -> None:
        # Python calls this for what __new__ returned: super() is the head.
        refuse_assigner(self.head_class, kwargs.get("train_cfg"))
        super().__init__(*args, **kwargs)

    def __reduce__(self) -> tuple:
        # The class is made at run time, so that pickle cannot find it by its name.
        return _blank, (self.head_class,), self.__dict__

    head_class: type[BaseDenseHead]


def configured_head_class(head: Mapping) -> Any:
    """The class whose arguments a ``bbox_head`` gives: for BoxVotingHead that of ``head_type``.

    Args:
        head: config of a head.

    Returns:
        The class; None if there is no such type.
    """
    kind = find_type(head.get("type"), MODELS)
    return find_type(head.get("head_type"), MODELS) if kind is BoxVotingHead else kind


def _blank(head_class: Any) -> BoxVotingHead:
    """A head with voting before its ``__init__``."""
    if not isinstance(head_class, type) or not issubclass(head_class, nn.Module):
        raise ValueError(
            f"BoxVotingHead: head_type must be the name of a registered dense head, not "
            f"{head_class!r}. Write bbox_head=dict(type='BoxVotingHead', head_type='ATSSHead')."
        )
    kind: Any = head_class  # mypy finds no hash in a class of modules
    return object.__new__(_voting_class(kind))


@functools.cache
def _voting_class(head_class: Any) -> type[BoxVotingHead]:
    name = head_class.__name__
    if issubclass(head_class, BoxVotingMixin):
        raise ValueError(
            f"BoxVotingHead: {name} reads test_cfg.box_voting by itself. Write type={name!r}, "
            "without head_type."
        )
    if not _can_vote(head_class):
        raise ValueError(
            f"BoxVotingHead: {name} cannot vote. Only a one-stage detector's dense head can whose "
            "boxes go through mmdet's _bbox_post_process, and which predicts no masks by them."
        )
    members = dict(head_class=head_class, __module__=__name__, __doc__=head_class.__doc__)
    bases = (BoxVotingHead, head_class)
    return types.new_class(f"BoxVoting{name}", bases, exec_body=lambda ns: ns.update(members))


def _can_vote(head_class: Any) -> bool:
    """Whether a head's boxes go through ``_bbox_post_process``, which all dense heads inherit."""
    if not issubclass(head_class, BaseDenseHead) or issubclass(head_class, CANNOT_VOTE):
        return False
    called = _called(head_class, "predict_by_feat", "_predict_by_feat_single")
    return any("_bbox_post_process" in names for names in called)


def _called(head_class: type, *methods: str) -> Iterator[tuple[str, ...]]:
    """Names in the code of methods, and of those that they call by ``super()``."""
    for method in methods:
        for kind in head_class.__mro__:
            if method in vars(kind):
                names = inspect.unwrap(vars(kind)[method]).__code__.co_names
                yield names
                if "super" not in names:
                    break
