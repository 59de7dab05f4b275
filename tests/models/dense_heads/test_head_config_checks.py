"""What a loss-aware head says to keys, losses, assigners and strides that do not fit it."""

import inspect
from functools import partial

import pytest
import torch
from helpers.dense_head_cases import METAS, ONE, STRIDES, features, losses_of
from helpers.paths import MMDET_CONFIGS
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.losses import BoundedIoULoss, L1Loss
from mmdet.models.task_modules.samplers import PseudoSampler
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope, Registry

from misalign_det.models.dense_heads import LossAwareFCOSHead
from misalign_det.models.dense_heads.fcos_no_centerness_head import FCOS_PARTS
from misalign_det.models.dense_heads.loss_aware_fcos_head import (
    DISTANCE_CODER,
    FOCAL_LOSS,
    IOU_LOSS,
)
from misalign_det.models.task_modules import JLAAssigner

SMALL = dict(num_classes=3, in_channels=16, feat_channels=16, strides=STRIDES)
OURS = ("TripleHead", "RFAHead", "LossAwareFCOSHead")
FITTING = "JLAAssigner, SpatialAlignAssigner or another BatchAssigner"
JLA = dict(assigner=dict(type="JLAAssigner"))


def build(kind="TripleHead", train_cfg=JLA, **kwargs):
    norm_cfg = dict(type="GN", num_groups=4)
    config = dict(type=kind, **SMALL, norm_cfg=norm_cfg, train_cfg=train_cfg)
    return MODELS.build(ConfigDict({**config, **kwargs}))


def complaint(**kwargs):
    with pytest.raises(ValueError) as found:
        build(**kwargs)
    return str(found.value)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(
    ("stock", "left_over"),
    [
        ("retinanet/retinanet_r50_fpn_1x_coco.py",
         ["anchor_generator", "bbox_coder is a DeltaXYWHBBoxCoder", "loss_bbox is L1Loss",
          "train_cfg.assigner is MaxIoUAssigner"]),
        ("atss/atss_r50_fpn_1x_coco.py",
         ["anchor_generator, loss_centerness,", "bbox_coder is a DeltaXYWHBBoxCoder",
          "train_cfg.assigner is ATSSAssigner"]),
        ("gfl/gfl_r50_fpn_1x_coco.py",
         ["loss_dfl", "reg_max", "ATSSAssigner"]),
        ("fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
         ["norm_on_bbox, centerness_on_reg,", "center_sampling"]),
        ("vfnet/vfnet_r50_fpn_1x_coco.py", ["loss_cls is VarifocalLoss", "use_vfl"]),
    ],
)  # fmt: skip
def test_all_that_another_head_left_is_named_at_once(kind, stock, left_over):
    model = Config.fromfile(MMDET_CONFIGS / stock).model
    head = ConfigDict(model.bbox_head, type=kind)
    head.train_cfg, head.test_cfg = model.get("train_cfg"), model.test_cfg
    with pytest.raises(ValueError) as found:
        MODELS.build(head)
    message = str(found.value)
    for part in (*left_over, "_delete_=True", f"type='{kind}'"):
        assert part in message, message


@pytest.mark.parametrize("kind", OURS)
def test_a_type_that_is_left_alone_with_its_own_keys_is_built(kind):
    head = build(
        kind,
        bbox_coder=dict(type="DistancePointBBoxCoder"),
        loss_bbox=dict(type="GIoULoss"),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True),
        train_cfg=dict(assigner=dict(type="JLAAssigner", topk=9, per_gt_reweight=0.5)),
    )
    assert head.assigner.topk == 9 and head.assigner.per_gt_reweight == 0.5


@pytest.mark.parametrize("loss", ["L1Loss", "SmoothL1Loss", "BalancedL1Loss", "MSELoss"])
def test_losses_of_coordinates_are_refused(loss):
    assert f"loss_bbox is {loss}" in complaint(loss_bbox=dict(type=loss))


def test_a_loss_without_labels_is_refused():
    assert "loss_cls is VarifocalLoss" in complaint(loss_cls=dict(type="mmdet.VarifocalLoss"))


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("loss", ["SeesawLoss", "EQLV2Loss"])
def test_losses_with_a_column_for_background_are_refused(kind, loss):
    message = complaint(kind=kind, loss_cls=dict(type=loss, use_sigmoid=True))
    assert f"loss_cls is {loss}, which reads a column for background" in message


@pytest.mark.parametrize("kind", OURS)
def test_dc_loss_acts_as_the_loss_that_it_wraps(kind):
    def config(name):
        return dict(type="DCLoss", loss=dict(type=name, use_sigmoid=True), use_sigmoid=True)

    assert "loss_cls is VarifocalLoss" in complaint(kind=kind, loss_cls=config("VarifocalLoss"))
    found = []
    for loss_cls in (config("QualityFocalLoss"), config("QualityFocalLoss")["loss"]):
        torch.manual_seed(0)
        head = build(kind, loss_cls=loss_cls)
        head.init_weights()
        found.append(losses_of(head, [ONE])[0]["loss_cls"])
    assert found[0] == found[1] > 0


@pytest.mark.parametrize(
    "loss",
    [dict(type="CrossEntropyLoss"), dict(type="MSELoss"), dict(type="SmoothL1Loss"),
     dict(type="QualityFocalLoss", use_sigmoid=True)],
    ids=lambda loss: loss["type"],
)  # fmt: skip
@pytest.mark.parametrize("kind", OURS)
def test_losses_that_do_not_train_a_sigmoid_towards_the_iou_are_refused(kind, loss):
    with pytest.raises(ValueError, match=f"loss_iou is {loss['type']}, .*use_sigmoid=True"):
        build(kind, loss_iou=loss, with_iou_branch=True)
    build(kind, loss_iou=loss, with_iou_branch=False, score_mode="class")  # it has no part then
    build(kind, loss_iou=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=0.5))


@pytest.mark.parametrize(
    "assigner",
    ["MaxIoUAssigner", "ATSSAssigner", "SimOTAAssigner", "TaskAlignedAssigner", "IACAssigner",
     "DynamicSoftLabelAssigner", "mmdet.MaxIoUAssigner"],
)  # fmt: skip
@pytest.mark.parametrize("kind", OURS)
def test_assigners_of_other_heads_are_refused(kind, assigner):
    message = complaint(kind=kind, train_cfg=dict(assigner=dict(type=assigner)))
    name = assigner.removeprefix("mmdet.")
    assert f"train_cfg.assigner is {name}, where {FITTING} fits" in message
    assert "bbox_head has" not in message and "train_cfg has" not in message


def test_an_assigner_given_as_a_class_fits():
    assert isinstance(build(train_cfg=dict(assigner=dict(type=JLAAssigner))).assigner, JLAAssigner)


def test_keys_of_the_assigner_that_stood_there_are_named():
    message = complaint(train_cfg=dict(
        assigner=dict(type="JLAAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4)))  # fmt: skip
    assert "train_cfg.assigner has pos_iou_thr, neg_iou_thr, which JLAAssigner" in message
    message = complaint(train_cfg=dict(
        assigner=dict(type="JLAAssigner", min_pos_iou=0), pos_weight=3))  # fmt: skip
    assert "train_cfg has pos_weight" in message and "assigner has min_pos_iou" in message


IDLE = dict(sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False)


@pytest.mark.parametrize("change", [
    {}, dict(sampler=None), dict(sampler="PseudoSampler"), dict(sampler=dict(type=PseudoSampler)),
    dict(pos_weight=None), dict(pos_weight=1), dict(pos_weight=0), dict(allowed_border=0),
    dict(debug=True),
])  # fmt: skip
def test_what_any_train_cfg_of_mmdets_holds_is_no_complaint(change):
    assert isinstance(build(train_cfg={**JLA, **IDLE, **change}).assigner, JLAAssigner)


@pytest.mark.parametrize(
    "change", [dict(sampler=dict(type="RandomSampler")), dict(pos_weight=2.0), dict(pos_weight=0.5)]
)
def test_unless_it_asks_for_something(change):
    assert f"train_cfg has {next(iter(change))}, which" in complaint(
        train_cfg={**JLA, **IDLE, **change}
    )


@pytest.mark.parametrize("train_cfg", [None, {}, dict(assigner=None)])
@pytest.mark.parametrize("kind", OURS)
def test_without_an_assigner_it_predicts_but_does_not_train(kind, train_cfg):
    head = build(kind, train_cfg=train_cfg, test_cfg={})
    assert not hasattr(head, "assigner")
    head.predict_by_feat(*head(features(1)), batch_img_metas=METAS[:1])
    with pytest.raises(ValueError, match=f"no assigner.*{FITTING} fits"):
        losses_of(head, [ONE])


@pytest.mark.parametrize(
    "kind", ["RFAFCOSHead", "FCOSHeadWithoutCenterness", "DCFCOSHead", "BoxVotingHead"]
)
def test_heads_with_fcos_targets_read_no_assigner(kind):
    more = dict(head_type="FCOSHead") if kind == "BoxVotingHead" else {}
    built = partial(build, kind, **more)
    message = complaint(kind=kind, **more)
    kind = more.get("head_type", kind)
    assert f"{kind} takes FCOS's targets" in message and "JLAAssigner. It trains" in message
    assert "or another head derived from LossAwareFCOSHead" in message
    built(train_cfg=None)
    built(train_cfg=dict(assigner=None))
    built(train_cfg=dict(assigner=dict(type="MaxIoUAssigner")))  # as old configs of FCOS


@pytest.mark.parametrize("kind", OURS)
def test_delete_where_the_base_has_nothing_to_delete(kind, tmp_path):
    """mmengine then leaves the key in the dict. FCOS has no train_cfg."""
    path = tmp_path / "config.py"
    path.write_text(
        "_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'\n"
        f"model = dict(bbox_head=dict(_delete_=True, type={kind!r}, num_classes=3, in_channels=256,"
        " init_cfg=dict(_delete_=True, type='Normal', layer='Conv2d', std=0.01)),\n"
        "    train_cfg=dict(_delete_=True, assigner=dict(_delete_=True, type='JLAAssigner')))\n"
    )
    model = Config.fromfile(path).model
    assert model.train_cfg._delete_ and model.train_cfg.assigner._delete_
    head = MODELS.build(model).bbox_head
    assert head.train_cfg == dict(assigner=dict(type="JLAAssigner"))
    assert isinstance(head.assigner, JLAAssigner) and "_delete_" not in head.init_cfg
    assert head.test_cfg.nms_pre == 1000
    assert model.train_cfg._delete_  # the caller's config is as it was


def test_delete_in_the_head_itself_and_in_the_parts_of_another_head():
    assert isinstance(build(_delete_=True).assigner, JLAAssigner)
    message = complaint(train_cfg=dict(_delete_=True, assigner=dict(type="JLAAssigner", iou=1)))
    assert "assigner has iou, which" in message and "has _delete_" not in message


@pytest.mark.parametrize(
    "part, config",
    [
        ("loss_cls", dict(type="FocalLoss", use_sigmoid=True)),
        ("loss_bbox", dict(type="GIoULoss")),
        ("loss_bbox_coarse", dict(type="GIoULoss")),
        ("loss_iou", dict(type="CrossEntropyLoss", use_sigmoid=True)),
        ("norm_cfg", dict(type="GN", num_groups=2)),
    ],
)
def test_delete_in_each_part_of_the_head(part, config):
    """A config in which the head has its defaults for these parts has nothing to delete."""
    given = dict(config, _delete_=True)
    assert repr(build("TripleHead", **{part: given})) == repr(build("TripleHead", **{part: config}))
    assert given["_delete_"]


def test_without_such_a_key_the_config_is_not_copied():
    """A change of the detector's test_cfg still reaches its head."""
    test_cfg = ConfigDict(score_thr=0.1, nms=dict(type="nms", iou_threshold=0.5))
    assert build(test_cfg=test_cfg).test_cfg is test_cfg


@pytest.mark.parametrize("num_levels", [4, 6])
@pytest.mark.parametrize("kind", [*OURS, "RFAFCOSHead", "FCOSHeadWithoutCenterness"])
def test_strides_and_levels_have_to_agree(kind, num_levels):
    head = build(kind, train_cfg=None)
    feats = (features(1) + features(1))[:num_levels]
    with pytest.raises(ValueError, match=rf"128\] and is given {num_levels} levels"):
        head(feats)


@pytest.mark.parametrize("strides", [[(8, 8), (16, 16)], [8, 0], [8, -16], ["8"]])
def test_strides_are_positive_numbers(strides):
    with pytest.raises(ValueError, match="one positive number per level"):
        MODELS.build(dict(type="TripleHead", **{**SMALL, "strides": strides}))


def test_an_argument_that_the_triple_head_would_ignore():
    assert "dcn_on_last_conv" in complaint(dcn_on_last_conv=True)


def test_a_derived_head_may_have_keys_of_its_own():
    class Derived(LossAwareFCOSHead):
        train_cfg_keys = ("assigner", "warm_up")

        def __init__(self, *args, temperature=1.0, **kwargs):
            super().__init__(*args, **kwargs)

    head = Derived(3, 16, temperature=2.0, feat_channels=32, train_cfg=dict(JLA, warm_up=1))
    assert isinstance(head.assigner, JLAAssigner)
    with pytest.raises(
        ValueError,
        match="train_cfg has cool_down, which Derived does not read "
        ".a head of your own names the keys that it reads in train_cfg_keys",
    ):
        Derived(3, 16, train_cfg=dict(JLA, cool_down=1))
    assert "of your own" not in complaint(train_cfg=dict(JLA, cool_down=1))


@pytest.mark.parametrize("kind", OURS)
def test_options_of_the_nms_are_checked_when_the_head_is_built(kind):
    for nms in (dict(gamma=-1.0, iou_threshold=0.5), dict(gamma=0.3)):
        with pytest.raises(ValueError, match="gamma must be|CLBalancedNMS: .*iou_threshold"):
            build(kind, test_cfg=dict(nms=dict(type="CLBalancedNMS", **nms)))


def test_a_loss_that_reads_no_weights_is_refused():
    message = complaint(loss_cls=dict(type="GHMC", use_sigmoid=True))
    assert "loss_cls is GHMC, which reads no weights of the positives" in message


@pytest.mark.parametrize("loss", [L1Loss, BoundedIoULoss])
def test_box_losses_of_coordinates_are_refused(loss):
    message = complaint(loss_bbox=dict(type=loss))
    assert f"loss_bbox is {loss.__name__}, which compares coordinates" in message


def default(kind, name):
    return inspect.signature(kind).parameters[name].default


def test_default_parts_are_mmdets():
    def scoped(config):
        return {**config, "type": f"mmdet.{config['type']}"}

    assert scoped(default(AnchorFreeHead, "loss_cls")) == FOCAL_LOSS
    assert scoped(default(AnchorFreeHead, "loss_bbox")) == IOU_LOSS
    assert scoped(default(AnchorFreeHead, "bbox_coder")) == DISTANCE_CODER
    for name in ("loss_cls", "loss_bbox", "loss_centerness"):
        assert scoped(default(FCOSHead, name)) == FCOS_PARTS[name]
    assert FCOS_PARTS["bbox_coder"] == DISTANCE_CODER


@pytest.fixture
def another_scope():
    """A package below mmdet with classes of equal names, as mmyolo's; its scope is the default."""
    scope = "child_of_mmdet"
    registries = [Registry(r.name, parent=r, scope=scope) for r in (MODELS, TASK_UTILS)]

    class Other(torch.nn.Module):
        encode_size = 4

        def __init__(self, **kwargs):
            super().__init__()

    for name in ("FocalLoss", "IoULoss", "GIoULoss", "CrossEntropyLoss"):
        registries[0].register_module(name=name, module=Other)
    registries[1].register_module(name="DistancePointBBoxCoder", module=Other)
    with DefaultScope.overwrite_default_scope(scope):
        yield Other
    for parent in (MODELS, TASK_UTILS):
        parent.children.pop(scope)


@pytest.mark.parametrize("kind", [*OURS, "RFAFCOSHead", "FCOSHeadWithoutCenterness"])
def test_default_parts_are_mmdets_in_any_default_scope(another_scope, kind):
    assert isinstance(MODELS.build(dict(type="IoULoss")), another_scope)
    head = MODELS.build(dict(type=f"mmdet.{kind}", **SMALL, norm_cfg=dict(type="GN", num_groups=4)))
    parts = [name for name, part in head.named_modules() if isinstance(part, another_scope)]
    assert not parts and type(head.bbox_coder).__module__.startswith("mmdet.")
    chosen = build("mmdet.TripleHead", train_cfg=None, loss_bbox=dict(type="IoULoss"))
    assert isinstance(chosen.loss_bbox, another_scope)
