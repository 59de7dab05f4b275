"""Combinations of head, assigner and loss that do not work are refused, the others are not."""

import pytest
from mmdet.models.dense_heads import FCOSHead

from misalign_det.apis.model_check import check_model
from misalign_det.errors import InputError
from misalign_det.models import DCLoss, JLAAssigner, cl_balanced_nms

FOCAL = dict(type="FocalLoss", use_sigmoid=True)


def model(head, assigner, **loss):
    return dict(bbox_head=dict(type=head, **loss), train_cfg=dict(assigner=dict(type=assigner)))


@pytest.mark.parametrize("assigner", ["JLAAssigner", "SpatialAlignAssigner"])
@pytest.mark.parametrize(
    "head",
    ["TripleHead", "RFAHead", "LossAwareFCOSHead", "RTMDetHead", "RTMDetSepBNHead", "YOLOXHead"],
)
def test_heads_that_train_by_predictions(head, assigner):
    check_model(model(head, assigner))


@pytest.mark.parametrize("assigner", ["JLAAssigner", "SpatialAlignAssigner"])
@pytest.mark.parametrize("name", ["per_gt_reweight", "gt_balance"])
def test_weights_per_gt_that_the_head_does_not_read(assigner, name):
    for head, refused in [("TripleHead", False), ("RTMDetSepBNHead", True), ("YOLOXHead", True)]:
        cfg = model(head, assigner)
        cfg["train_cfg"]["assigner"][name] = 0.5
        if refused:
            with pytest.raises(InputError, match=f"{head}: .*per_gt_reweight = 0.5 has no effect"):
                check_model(cfg)
            cfg["train_cfg"]["assigner"][name] = 0
        check_model(cfg)


def test_locations_that_yolox_would_train_as_background():
    for head, refused in (("YOLOXHead", True), ("RTMDetHead", False), ("TripleHead", False)):
        cfg = model(head, "JLAAssigner")
        cfg["train_cfg"]["assigner"]["ambiguous"] = "ignore"
        if refused:
            with pytest.raises(InputError, match="ambiguous = 'ignore'.* as background"):
                check_model(cfg)
        else:
            check_model(cfg)


@pytest.mark.parametrize("nms", ["CLBalancedNMS", cl_balanced_nms])
def test_options_of_the_nms(nms):
    nms = dict(type=nms, iou_threshold=0.6, class_agnostic=True, split_thr=100)
    for options, said in (
        ({}, None),
        (dict(gamma=float("nan")), "gamma must be"),
        (dict(sigma=float("inf")), "sigma positive"),
        (dict(closeness="gausian"), "closeness must be one of"),
        (dict(gama=0.3), "CLBalancedNMS: .*gama"),
    ):
        for test_cfg in (dict(nms={**nms, **options}), dict(rcnn=dict(nms={**nms, **options}))):
            cfg = dict(bbox_head=dict(type="RetinaHead"), test_cfg=test_cfg)
            if said is None:
                check_model(cfg)
                continue
            with pytest.raises(InputError, match=rf"model.test_cfg\S*.nms: .*{said}"):
                check_model(cfg)
    check_model(dict(test_cfg=dict(nms=None)))
    check_model(dict(test_cfg=dict(nms=dict(type="soft_nms", min_score=0.1))))


@pytest.mark.parametrize("head", ["RetinaHead", "ATSSHead", "GFLHead", "PAAHead", "TOODHead",
                                  "DDODHead", "VFNetHead", "DCRetinaHead"])  # fmt: skip
@pytest.mark.parametrize("assigner", ["JLAAssigner", "mmdet.SpatialAlignAssigner"])
def test_heads_that_call_an_assigner_in_another_way(head, assigner):
    message = f"{head}, which calls its assigner in another way.*TripleHead"
    with pytest.raises(InputError, match=message):
        check_model(model(head, assigner))


@pytest.mark.parametrize("head", ["FCOSHead", "mmdet.FCOSHead", FCOSHead, "RFAFCOSHead",
                                  "DCFCOSHead", "FCOSHeadWithoutCenterness"])  # fmt: skip
@pytest.mark.parametrize("assigner", ["JLAAssigner", JLAAssigner])
def test_fcos_would_ignore_it(head, assigner):
    with pytest.raises(InputError, match="never calls an assigner: .* LossAwareFCOSHead"):
        check_model(model(head, assigner))


@pytest.mark.parametrize(
    ("head", "assigner", "fitting"),
    [
        ("RetinaHead", "IACAssigner", "DCRetinaHead"),
        ("DCATSSHead", "IACAssigner", "DCRetinaHead"),
        ("ATSSHead", "IACATSSAssigner", "DCATSSHead and DCGFLHead"),
        ("DCRetinaHead", "IACATSSAssigner", "DCATSSHead and DCGFLHead"),
    ],
)
def test_assigners_that_need_probabilities(head, assigner, fitting):
    with pytest.raises(InputError, match=f"{assigner} goes with {fitting}"):
        check_model(model(head, assigner))


def test_without_a_score_threshold_it_is_mmdets_assigner():
    cfg = model("RetinaHead", "IACAssigner")
    cfg["train_cfg"]["assigner"]["score_threshold"] = float("inf")
    check_model(cfg)


@pytest.mark.parametrize("loss", ["DCLoss", "mmdet.DCLoss", DCLoss])
@pytest.mark.parametrize("head", ["RetinaHead", "FCOSHead", "VFNetHead", "TripleHead"])
def test_a_head_without_boxes_for_dc_loss(head, loss):
    with pytest.raises(InputError, match=f"model.bbox_head is a {head}.*DCRetinaHead"):
        check_model(model(head, None, loss_cls=dict(type=loss, loss=FOCAL)))


def test_dc_heads_take_it():
    for head in ("DCRetinaHead", "DCATSSHead", "DCGFLHead", "DCFCOSHead"):
        check_model(model(head, None, loss_cls=dict(type="DCLoss", loss=FOCAL)))


def test_two_stages_and_wrapped_detectors():
    jla = dict(assigner=dict(type="JLAAssigner"))
    two_stage = dict(rpn_head=dict(type="RPNHead"), roi_head=dict(type="CascadeRoIHead"))
    with pytest.raises(InputError, match="model.rpn_head is a RPNHead"):
        check_model(dict(two_stage, train_cfg=dict(rpn=jla)))
    with pytest.raises(InputError, match="model.roi_head is a CascadeRoIHead"):
        check_model(dict(two_stage, train_cfg=dict(rcnn=[{}, jla])))
    with pytest.raises(InputError, match="model.detector.bbox_head is a FCOSHead"):
        check_model(dict(type="SemiBaseDetector", detector=model("FCOSHead", "JLAAssigner")))


def test_the_heads_own_train_cfg_and_other_assigners_of_a_head():
    head = dict(type="DDODHead", train_cfg=dict(reg_assigner=dict(type="JLAAssigner")))
    with pytest.raises(InputError, match="train_cfg.reg_assigner = JLAAssigner"):
        check_model(dict(bbox_head=head, train_cfg=dict(assigner=dict(type="ATSSAssigner"))))


def test_foreign_heads_are_not_judged():
    class Foreign:
        pass

    check_model(model(Foreign, "JLAAssigner"))
    check_model(model("NoSuchHead", "JLAAssigner"))
    check_model(dict(backbone=dict(type="ResNet")))


@pytest.mark.parametrize("voting", [{}, dict(sigma=0.05)])
def test_box_voting_in_a_head_that_does_not_vote(voting):
    test_cfg = dict(box_voting=voting)
    for head in ("ATSSHead", "mmdet.ATSSHead"):
        said = (
            r"model.test_cfg.box_voting: ATSSHead does not read it. Write "
            r"bbox_head=dict\(type='BoxVotingHead', head_type='ATSSHead'\)"
        )
        with pytest.raises(InputError, match=said):
            check_model(dict(bbox_head=dict(type=head), test_cfg=test_cfg))
    for head in (dict(type="BoxVotingHead", head_type="ATSSHead"), dict(type="TripleHead"),
                 dict(type="DCATSSHead")):  # fmt: skip
        check_model(dict(bbox_head=head, test_cfg=test_cfg))
    check_model(dict(bbox_head=dict(type="ATSSHead"), test_cfg=dict(box_voting=None)))


@pytest.mark.parametrize("stage", ["rpn", "rcnn"])
def test_box_voting_in_two_stages(stage):
    two = dict(rpn_head=dict(type="RPNHead"), roi_head=dict(type="StandardRoIHead"))
    said = f"model.test_cfg.{stage}.box_voting: nothing reads it. Of a two-stage"
    with pytest.raises(InputError, match=said):
        check_model(dict(two, test_cfg={stage: dict(box_voting={})}))
    with pytest.raises(InputError, match="model.detector.test_cfg.box_voting: nothing reads it"):
        check_model(dict(detector=dict(two, test_cfg=dict(box_voting={}))))


def test_the_head_inside_box_voting():
    """It is the one that the assigner has to fit."""
    wrapped = dict(type="BoxVotingHead", head_type="RTMDetSepBNHead")
    train_cfg = dict(assigner=dict(type="JLAAssigner"))
    check_model(dict(bbox_head=wrapped, train_cfg=train_cfg))
    with pytest.raises(InputError, match="a FCOSHead, which never calls an assigner"):
        check_model(dict(bbox_head=dict(wrapped, head_type="FCOSHead"), train_cfg=train_cfg))
