"""The methods of the studies: a base of `configs/_base_/models/`, and options on top of it.

To add one, add a line to `METHODS`, and its name to a study in `grid.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD, ASSIGNER = "model.bbox_head", "model.train_cfg.assigner"
REFERENCE = "fcos"  # gains and costs are given over it


@dataclass(frozen=True)
class Method:
    """A detector, as trained and tested in the studies.

    Attributes:
        name: also in result lines and tables.
        base: file of `configs/_base_/models/` without backbone and neck: 'fcos' is
            `fcos_effnet-lite0_fpn.py`.
        options: dotted keys of the config, and values; a dict with `_delete_` replaces one.
        trained_as: method whose checkpoint is tested; this one then has no training of its own, and
            its options may change testing only.
        baseline: method that this one adds a part to; its gain over it is computed besides the gain
            over `REFERENCE`.
        peer: whether it is mmdet's own: the best of these is compared with this package's.
        epoch_shares: dotted keys that count epochs, and their share of the training.
    """

    name: str
    base: str
    options: Mapping[str, Any] = field(default_factory=dict)
    trained_as: str | None = None
    baseline: str | None = None
    peer: bool = False
    epoch_shares: Mapping[str, float] = field(default_factory=dict)


def changed(parent: Method, name: str, options: Mapping[str, Any], **kwargs: Any) -> Method:
    """A method that is another one with further options; its baseline is the other one."""
    merged = {**parent.options, **options}
    kwargs = {"baseline": parent.name, "epoch_shares": parent.epoch_shares, **kwargs}
    return Method(name, parent.base, merged, **kwargs)


def with_clnms(parent: Method) -> Method:
    """A method tested with CLBalancedNMS at its own IoU threshold; no training of its own."""
    options = {"model.test_cfg.nms.type": "CLBalancedNMS"}
    return changed(parent, f"{parent.name}-clnms", options, trained_as=parent.name)


def with_voting(parent: Method, head_type: str | None = None) -> Method:
    """A method tested with box voting after its NMS; no training of its own.

    Args:
        head_type: the head's registered name, of mmdet's heads; those of this package vote without.
    """
    options = {"model.test_cfg.box_voting": dict(sigma=0.025, iou_threshold=0.01)}
    if head_type:
        options |= {f"{HEAD}.type": "BoxVotingHead", f"{HEAD}.head_type": head_type}
    return changed(parent, f"{parent.name}-voting", options, trained_as=parent.name)


def dc_loss(**loss: Any) -> dict[str, Any]:
    """DCLoss around a classification loss, in the place of it."""
    return dict(_delete_=True, type="DCLoss", loss=dict(use_sigmoid=True, loss_weight=1.0, **loss))


FOCAL = dict(type="FocalLoss", gamma=2.0, alpha=0.25)
QUALITY = dict(type="QualityFocalLoss", beta=2.0)
# Towers as in configs/_base_/models/fcos_r18_fpn.py, which every small model has.
FCOS_TOWERS = dict(
    _delete_=True,
    type="LossAwareFCOSHead",
    num_classes=80,
    in_channels=64,
    feat_channels=64,
    stacked_convs=2,
    strides=[8, 16, 32, 64, 128],
    norm_cfg=dict(type="GN", num_groups=16, requires_grad=True),
    loss_cls=dict(use_sigmoid=True, loss_weight=1.0, **FOCAL),
    loss_bbox=dict(type="IoULoss", loss_weight=1.0),
)
# In mmdet's schedule TOOD's task-aligned assigner takes over after 4 of 12 epochs.
_SHARES = {"tood": {"model.train_cfg.initial_epoch": 1 / 3}}
PEERS = [
    Method(name, name, peer=True, epoch_shares=_SHARES.get(name, {}))
    for name in (
        *("fcos", "atss", "paa", "tood", "retinanet", "gfl", "vfnet", "ddod", "autoassign"),
        *("rtmdet", "yolox"),
    )
]
_peer = {method.name: method for method in PEERS}

# The default's first boxes on the finest level are three strides wide, by `init_distance`; these
# anchors are four, on all levels.
TUNING = [
    changed(
        _peer[name],
        f"{name}-anchor4",
        {f"{HEAD}.anchor_generator.octave_base_scale": 4},
        baseline=name,
        peer=True,
    )
    for name in ("atss", "paa", "tood")
]
TOOD_TRIALS = [  # configs/peers.md: what its AP on the cards does not come from
    *(
        changed(_peer["tood"], f"tood-convs{n}", {f"{HEAD}.stacked_convs": n}, peer=True)
        for n in (3, 6)
    ),
    # ATSS's positives and the focal loss in all epochs.
    changed(
        _peer["tood"],
        "tood-initial",
        {},
        peer=True,
        epoch_shares={"model.train_cfg.initial_epoch": 1},
    ),
]

NO_CENTERNESS = changed(
    _peer["fcos"], "fcos-no-centerness", {f"{HEAD}.type": "FCOSHeadWithoutCenterness"}
)
TRIPLE = Method("jla_triplehead", "triplehead", baseline="jla_triplehead-refine")
JLA_FCOS = changed(TRIPLE, "jla_fcos", {HEAD: FCOS_TOWERS}, baseline=NO_CENTERNESS.name)
COMPONENTS = [  # Triple-head Network, table 5; its last row is TRIPLE
    NO_CENTERNESS,
    JLA_FCOS,
    changed(
        TRIPLE,
        "jla_triplehead-plain",
        {
            f"{HEAD}.refine_mode": "none",
            f"{HEAD}.with_iou_branch": False,
            f"{HEAD}.score_mode": "class",
        },
        baseline="jla_fcos",
    ),
    changed(
        TRIPLE,
        "jla_triplehead-confidence",
        {f"{HEAD}.refine_mode": "none"},
        baseline="jla_triplehead-plain",
    ),
    changed(
        TRIPLE,
        "jla_triplehead-refine",
        {f"{HEAD}.with_iou_branch": False, f"{HEAD}.score_mode": "class"},
        baseline="jla_triplehead-plain",
    ),
]
CANDIDATES = [  # table 1; 35 is jla_fcos
    changed(JLA_FCOS, f"jla-k{k}_fcos", {f"{ASSIGNER}.topk": k}) for k in (25, 30, 40, 45)
]
THRESHOLDS = [  # table 2; 0.6 is jla_fcos
    changed(JLA_FCOS, f"jla-theta{str(theta).replace('.', '')}_fcos", {f"{ASSIGNER}.theta": theta})
    for theta in (0, 0.7, 0.8)
]

RFA = Method("spatial-align_rfahead", "rfahead")
ALIGN_FCOS = changed(
    RFA,
    "spatial-align_fcos",
    {
        f"{HEAD}.type": "LossAwareFCOSHead",
        f"{HEAD}.with_iou_branch": True,
        f"{HEAD}.iou_mode": "giou",
        f"{HEAD}.score_mode": "geometric_mean",
        f"{HEAD}.centerness_weight": True,
    },
    baseline="fcos",
)
RFA_FCOS = changed(
    _peer["fcos"], "rfa_fcos", {f"{HEAD}.type": "RFAFCOSHead", f"{HEAD}.rfa_position": "first"}
)
ALIGN = dict(_delete_=True, type="SpatialAlignAssigner", topk=9, num_levels=2)
ALIGN_TRIPLE = changed(TRIPLE, "spatial-align_triplehead", {ASSIGNER: ALIGN})

IAC = changed(
    _peer["retinanet"],
    "iac_retinanet",
    {f"{HEAD}.type": "DCRetinaHead", f"{ASSIGNER}.type": "IACAssigner"},
)
IAC_DC = changed(IAC, "iac-dc_retinanet", {f"{HEAD}.loss_cls": dc_loss(**FOCAL)})
IAC_DC_CLNMS = changed(
    IAC_DC,
    "iac-dc-clnms_retinanet",
    {"model.test_cfg.nms.type": "CLBalancedNMS"},
    trained_as="iac-dc_retinanet",
)
DC = [
    changed(
        _peer["atss"],
        "dc_atss",
        {f"{HEAD}.type": "DCATSSHead", f"{HEAD}.loss_cls": dc_loss(**FOCAL)},
    ),
    changed(
        _peer["gfl"],
        "dc_gfl",
        {f"{HEAD}.type": "DCGFLHead", f"{HEAD}.loss_cls": dc_loss(**QUALITY)},
    ),
]
DROP_INS = [
    changed(
        _peer[name],
        f"jla_{name}",
        {ASSIGNER: dict(_delete_=True, type="JLAAssigner", score_format=scores)},
    )
    for name, scores in (("rtmdet", "logits"), ("yolox", "probs"))
]
DEFAULT = Method("misalign", "misalign")
_BOX_LOSSES = {
    f"{HEAD}.{key}": dict(_delete_=True, type="IoULoss", loss_weight=1.0)
    for key in ("loss_bbox", "loss_bbox_coarse")
}
JLA = dict(_delete_=True, type="JLAAssigner", theta=0.6, per_gt_reweight=1.0)
PARTS = [  # configs/misalign.md: the default without each of its parts
    changed(
        DEFAULT, "misalign-no-voting", {"model.test_cfg.box_voting": None}, trained_as="misalign"
    ),
    changed(DEFAULT, "misalign-alpha05", {f"{HEAD}.score_alpha": 0.5}, trained_as="misalign"),
    changed(
        DEFAULT,
        "misalign-focal",
        {f"{HEAD}.loss_cls": dict(_delete_=True, use_sigmoid=True, loss_weight=1.0, **FOCAL)},
    ),
    changed(DEFAULT, "misalign-iou-loss", _BOX_LOSSES),
    changed(DEFAULT, "misalign-no-refine", {f"{HEAD}.refine_mode": "none"}),
    changed(DEFAULT, "misalign-add", {f"{HEAD}.refine_mode": "add"}),
    changed(DEFAULT, "misalign-coarse-iou", {f"{HEAD}.iou_target": "coarse"}),
    changed(
        DEFAULT,
        "misalign-unguided-cls",
        {f"{HEAD}.guided_branches": "regression", f"{HEAD}.cls_shortcut": False},
    ),
    changed(DEFAULT, "misalign-no-shortcut", {f"{HEAD}.cls_shortcut": False}),
    changed(DEFAULT, "misalign-init15", {f"{HEAD}.init_distance": 1.5}),
    changed(DEFAULT, "misalign-init4", {f"{HEAD}.init_distance": 4.0}),
    changed(DEFAULT, "misalign-no-reweight", {f"{ASSIGNER}.per_gt_reweight": 0.0}),
]
ASSIGNERS = [
    changed(DEFAULT, f"misalign-jla-k{k}", {ASSIGNER: dict(JLA, topk=k)}) for k in (9, 18, 35)
]

_TRAINED = [
    *(
        *PEERS,
        *TUNING,
        *TOOD_TRIALS,
        *COMPONENTS,
        TRIPLE,
        *CANDIDATES,
        *THRESHOLDS,
        RFA,
        ALIGN_FCOS,
        RFA_FCOS,
    ),
    *(ALIGN_TRIPLE, IAC, IAC_DC, *DC, *DROP_INS, DEFAULT),
    *(part for part in (*PARTS, *ASSIGNERS) if part.trained_as is None),
]
WITH_CLNMS = (
    *("retinanet", "gfl", "vfnet", "ddod", "autoassign", "jla_fcos", "spatial-align_fcos"),
    *("rfa_fcos", "spatial-align_triplehead", "dc_atss", "dc_gfl"),
)
VOTING = [
    *(with_voting(_peer[n], f"{n.upper()}Head") for n in ("fcos", "atss", "gfl")),
    with_voting(_peer["retinanet"], "RetinaHead"),
    *(with_voting(method) for method in (JLA_FCOS, ALIGN_FCOS, ALIGN_TRIPLE)),
]
METHODS = {
    method.name: method
    for method in (
        *(*_TRAINED, IAC_DC_CLNMS, *VOTING, *PARTS),
        *(with_clnms(method) for method in _TRAINED if method.name in WITH_CLNMS),
    )
}
