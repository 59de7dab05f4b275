"""What is said of a key that a type does not take, and of a type that there is not."""

import pytest
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.registry import LOOPS, OPTIMIZERS
from torch import nn

from misalign_det.apis.build_errors import explain_build_error
from misalign_det.utils.validation import check_choice


def said(build, cfg=None):
    with pytest.raises(Exception) as caught:  # noqa: B017
        build()
    return explain_build_error(caught.value, cfg and Config(cfg))


def test_unknown_types_with_their_key_and_near_matches():
    cfg = dict(model=dict(type="FCOS", heads=[dict(type="RFAHead"), dict(type="TripelHead")]))
    text = said(lambda: MODELS.build(dict(type="TripelHead")), cfg)
    assert text.startswith(
        "model.heads.1.type: mmdet has no model 'TripelHead'. Near matches: TripleHead"
    )
    text = said(lambda: TASK_UTILS.build(dict(type="QQQQQ")), cfg)
    assert text == (
        "mmdet has no task util 'QQQQQ'. A class of your own is found if "
        "custom_imports names its module."
    )
    # mmengine's own are found through mmdet's registry, which is below its
    text = said(lambda: MODELS.build(dict(type="ImgDataPreprocesor")))
    assert text.startswith(
        "mmdet has no model 'ImgDataPreprocesor'. Near matches: ImgDataPreprocessor"
    )


def test_a_key_that_the_type_does_not_take():
    cfg = dict(train_cfg=dict(type="EpochBasedTrainLoop", max_epoch=3), other=dict(max_epoch=1))
    build = {**cfg["train_cfg"], "runner": None, "dataloader": None}
    assert said(lambda: LOOPS.build(build), cfg) == (
        "train_cfg.max_epoch: EpochBasedTrainLoop takes no 'max_epoch'. Near matches: max_epochs."
    )
    assert said(lambda: LOOPS.build(build)) == (
        "EpochBasedTrainLoop takes no 'max_epoch'. Near matches: max_epochs."
    )
    sgd = dict(type="SGD", params=nn.Linear(1, 1).parameters(), learning_rate=1)
    text = said(lambda: OPTIMIZERS.build(sgd))
    assert text.startswith("SGD takes no 'learning_rate'. It takes params, lr, momentum,")


def test_a_key_that_only_the_parent_class_refuses():
    """FCOSHead passes its further arguments on; the config's type is the one to be named."""
    head = dict(type="FCOSHead", num_classes=1, in_channels=8, stacked_conv=1)
    text = said(lambda: MODELS.build(head), dict(model=dict(bbox_head=head)))
    assert text.startswith(
        "model.bbox_head.stacked_conv: FCOSHead takes no 'stacked_conv'. "
        "Near matches: stacked_convs"
    )


def test_what_a_class_of_this_package_refuses():
    head = dict(type="TripleHead", num_classes=1, in_channels=8, stacked_conv=1)
    text = said(lambda: MODELS.build(head), dict(model=dict(bbox_head=head)))
    assert text.startswith(
        "model.bbox_head: TripleHead does not fit this config: bbox_head has "
        "stacked_conv (did you mean stacked_convs?), which TripleHead does not"
    )
    text = said(lambda: TASK_UTILS.build(dict(type="JLAAssigner", topk=0)))
    assert text == "topk must be an integer from 1, not 0."

    class Foreign:
        def __init__(self):
            raise ValueError("no")

    # A class of somebody else's, and what comes from no config, keep their traceback.
    assert said(lambda: MODELS.build(dict(type=Foreign))) is None
    assert said(lambda: check_choice("mode", "a", "b")) is None


def test_classes_for_types_and_runners_without_types():
    from mmengine.runner import EpochBasedTrainLoop

    loop = dict(type=EpochBasedTrainLoop, max_epoch=3)
    text = said(
        lambda: LOOPS.build({**loop, "runner": None, "dataloader": None}), dict(train_cfg=loop)
    )
    assert text.startswith("train_cfg.max_epoch: EpochBasedTrainLoop takes no")

    def build_train_loop():  # as mmengine's runner does where train_cfg has by_epoch
        EpochBasedTrainLoop(runner=None, dataloader=None, max_epoch=3)

    text = said(build_train_loop, dict(train_cfg=dict(by_epoch=True, max_epoch=3)))
    assert text == "train_cfg.max_epoch: EpochBasedTrainLoop takes no 'max_epoch'."


def test_a_key_that_is_missing():
    loop = dict(type="IterBasedTrainLoop")
    text = said(
        lambda: LOOPS.build({**loop, "runner": None, "dataloader": None}), dict(train_cfg=loop)
    )
    assert text == "train_cfg: IterBasedTrainLoop needs 'max_iters'."


def wrong_call():
    dict.fromkeys()


def test_errors_of_the_program_are_left_alone():
    def forward(x):
        return x

    assert said(lambda: forward(y=1)) is None  # not built from a config
    assert said(lambda: {}["bbox_head is missing"]) is None
    assert said(wrong_call) is None
    assert said(lambda: int("x")) is None

    class Head:
        def __init__(self):
            forward(y=1)  # a mistake of its author

    class Neck:
        def __init__(self):
            Other(y=1)

    class Other:
        def __init__(self):
            pass

    assert said(lambda: MODELS.build(dict(type=Head))) is None
    assert said(lambda: MODELS.build(dict(type=Neck))) is None
