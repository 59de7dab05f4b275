"""Check before the model is built that its head, assigner and loss fit together.

mmdet's heads call their assigners in different ways, and some call none: FCOS would ignore the
assigner in its config without a message.
"""

from collections.abc import Iterator, Mapping

from mmdet.models.dense_heads import RTMDetHead, YOLOXHead
from mmdet.registry import MODELS, TASK_UTILS

from ..errors import InputError
from ..models.dense_heads import (
    BoxVotingMixin,
    DCATSSHead,
    DCGFLHead,
    DCRetinaHead,
    LossAwareFCOSHead,
)
from ..models.dense_heads.box_voting_head import configured_head_class
from ..models.dense_heads.dc_heads import DCMixin
from ..models.dense_heads.head_config_checks import has_fcos_targets
from ..models.losses import DCLoss
from ..models.post_processing.cl_balanced_nms import check_nms
from ..models.task_modules import IACAssigner, IACATSSAssigner
from ..models.task_modules.assigners.batch_assigner import NO_WEIGHTS, BatchAssigner
from ..utils import find_type, is_type

# The heads that call an assigner with the arguments it needs.
FITTING_HEADS = {
    BatchAssigner: (LossAwareFCOSHead, RTMDetHead, YOLOXHead),
    IACAssigner: (DCRetinaHead,),
    IACATSSAssigner: (DCATSSHead, DCGFLHead),
}
_NAMES = {
    BatchAssigner: "TripleHead, RFAHead or another head derived from LossAwareFCOSHead, and with "
    "mmdet's RTMDetHead and YOLOXHead",
    IACAssigner: "DCRetinaHead",
    IACATSSAssigner: "DCATSSHead and DCGFLHead",
}


def check_model(model: Mapping) -> None:
    """Refuse an assigner or a DCLoss of this package in a head of mmdet that cannot use it.

    Heads that are neither mmdet's nor this package's are not checked.

    Args:
        model: config of a detector with ``bbox_head``, or with ``rpn_head`` and ``roi_head``; also
            a config that wraps a ``detector``.

    Raises:
        InputError: the combination would raise an error in training, or would have no effect; also
            box voting in a part that does not vote, and wrong options of ``CLBalancedNMS``.

    Example:
        >>> check_model(dict(bbox_head=dict(type='TripleHead'),
        ...                  train_cfg=dict(assigner=dict(type='JLAAssigner'))))
    """
    for key, test_cfg, head in _tests(model, "model"):
        _check_voting(key, test_cfg, head)
        try:
            check_nms(test_cfg.get("nms"))
        except ValueError as error:
            raise InputError(f"{key}.nms: {error}") from error
    for key, head, train_cfg in _heads(model, "model"):
        kind = configured_head_class(head)
        if not _known(kind):
            continue
        for name, assigner in _assigners(train_cfg):
            _check_assigner(f"{key} is a {kind.__name__}", kind, name, assigner)
        loss = head.get("loss_cls")
        if isinstance(loss, Mapping) and is_type(loss.get("type"), DCLoss, MODELS):
            if not issubclass(kind, DCMixin):
                raise InputError(
                    f"{key} is a {kind.__name__}, whose loss_cls is a DCLoss. This head passes it "
                    "no boxes, so that it would have no effect. Use DCRetinaHead, DCATSSHead, "
                    "DCGFLHead or DCFCOSHead in place of mmdet's head."
                )


def _check_assigner(head: str, kind: type, name: str, assigner: Mapping) -> None:
    for ours, heads in FITTING_HEADS.items():
        if not is_type(assigner.get("type"), ours, TASK_UTILS) or issubclass(kind, heads):
            continue
        if assigner.get("score_threshold") == float("inf"):  # then it is mmdet's assigner
            continue
        why = (
            "never calls an assigner"
            if has_fcos_targets(kind)
            else "calls its assigner in another way"
        )
        found = find_type(assigner["type"], TASK_UTILS).__name__
        raise InputError(
            f"{head}, which {why}: {name} = {found} cannot be used there. {found} goes with "
            f"{_NAMES[ours]}."
        )
    ignores = assigner.get("ambiguous") == "ignore" and issubclass(kind, YOLOXHead)
    if ignores and is_type(assigner.get("type"), BatchAssigner, TASK_UTILS):
        raise InputError(
            f"{head}: {name}.ambiguous = 'ignore', and this head trains every location that is no "
            "positive as background. Use ambiguous='argmin'."
        )
    reweighted = assigner.get("per_gt_reweight") or assigner.get("gt_balance")
    if reweighted and not issubclass(kind, LossAwareFCOSHead):
        raise InputError(
            f"{head}: {name}.per_gt_reweight = {reweighted} has no effect. {NO_WEIGHTS}"
        )


def _known(kind: object) -> bool:
    return isinstance(kind, type) and kind.__module__.split(".")[0] in ("mmdet", "misalign_det")


def _check_voting(key: str, test_cfg: Mapping, head: Mapping | None) -> None:
    if test_cfg.get("box_voting") is None:
        return
    if head is None:
        raise InputError(
            f"{key}.box_voting: nothing reads it. Of a two-stage detector's parts none votes; "
            "one-stage detectors read model.test_cfg.box_voting."
        )
    kind = configured_head_class(head)
    if not _known(kind) or is_type(head.get("type"), BoxVotingMixin, MODELS):
        return
    raise InputError(
        f"{key}.box_voting: {kind.__name__} does not read it. Write "
        f"bbox_head=dict(type='BoxVotingHead', head_type='{kind.__name__}')."
    )


def _tests(model: Mapping, key: str) -> Iterator[tuple[str, Mapping, Mapping | None]]:
    """Key and value of each test_cfg, and the dense head that reads it, None where none does."""
    if isinstance(model.get("detector"), Mapping):  # semi-supervised
        yield from _tests(model["detector"], f"{key}.detector")
    test_cfg = model.get("test_cfg") or {}
    bbox_head = model.get("bbox_head")
    yield f"{key}.test_cfg", test_cfg, bbox_head if isinstance(bbox_head, Mapping) else None
    for stage in ("rpn", "rcnn"):
        if isinstance(test_cfg.get(stage), Mapping):
            yield f"{key}.test_cfg.{stage}", test_cfg[stage], None


def _heads(model: Mapping, key: str) -> Iterator[tuple[str, Mapping, Mapping | list | None]]:
    """Key, config and train_cfg of each head of a detector's config."""
    if isinstance(model.get("detector"), Mapping):  # semi-supervised
        yield from _heads(model["detector"], f"{key}.detector")
    train_cfg = model.get("train_cfg") or {}
    bbox_head = model.get("bbox_head")
    if isinstance(bbox_head, Mapping):
        yield f"{key}.bbox_head", bbox_head, bbox_head.get("train_cfg") or train_cfg
    for part, stage in (("rpn_head", "rpn"), ("roi_head", "rcnn")):
        if isinstance(model.get(part), Mapping):
            yield f"{key}.{part}", model[part], train_cfg.get(stage)


def _assigners(train_cfg: Mapping | list | None) -> Iterator[tuple[str, Mapping]]:
    """Name and config of each assigner; a cascade has a ``train_cfg`` for each stage."""
    for stage in train_cfg if isinstance(train_cfg, (list, tuple)) else [train_cfg or {}]:
        for name, value in stage.items():
            if isinstance(value, Mapping) and name.endswith("assigner"):
                yield f"train_cfg.{name}", value
