"""What is said of a key that a type does not take, and of a type that there is not."""

import pytest
import torch
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmdet.registry import HOOKS, METRICS, MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import LOOPS, OPTIMIZERS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

from misalign_det.apis.build_errors import explain_build_error
from misalign_det.utils.validation import check_choice

HINT = " MISALIGN_DET_TRACEBACK=1 shows where it comes from."


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


@pytest.mark.parametrize(
    ("registry", "part", "text"),
    [
        (
            METRICS,
            dict(type="CocoMetric", metric="foo"),
            "CocoMetric cannot be built (KeyError: metric should be one of 'bbox', 'segm', "
            "'proposal', 'proposal_fast', but got foo). Its arguments are metric='foo'.",
        ),
        (
            MODELS,
            dict(type="FPN", in_channels="foo", out_channels=8, num_outs=5),
            "FPN cannot be built (AssertionError). Its arguments are in_channels='foo', "
            "out_channels=8, num_outs=5.",
        ),
        (
            HOOKS,
            dict(type="LoggerHook", interval="abc"),
            "LoggerHook cannot be built (TypeError: interval must be an integer). Its arguments "
            "are interval='abc'.",
        ),
    ],
)
def test_what_a_class_of_the_packages_below_refuses(registry, part, text):
    assert said(lambda: registry.build(part), dict(a=dict(b=part))) == f"a.b: {text}{HINT}"
    assert said(lambda: registry.build(part)).startswith(text.partition(" Its arguments")[0])


def test_values_that_optimizers_and_schedulers_choke_on():
    layer = nn.Linear(1, 1)
    sgd = dict(type="AdamW", lr=0.1, weight_decay="abc")
    text = said(
        lambda: build_optim_wrapper(layer, dict(type="OptimWrapper", optimizer=sgd)),
        dict(optim_wrapper=dict(optimizer=sgd)),
    )
    assert text.startswith("optim_wrapper.optimizer: AdamW cannot be built (TypeError: '<=' not ")
    assert text.endswith(f" Its arguments are lr=0.1, weight_decay='abc'.{HINT}")
    warm_up = dict(type="LinearLR", start_factor=0.1, end="abc")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1)
    text = said(lambda: PARAM_SCHEDULERS.build(dict(warm_up, optimizer=optimizer)))
    assert "cannot be built (TypeError: " in text


def test_a_dataloader_is_built_without_a_registry():
    part = dict(batch_size=1, num_workers=0, prefetch_factor=2, sampler=dict(type="DefaultSampler"))
    text = said(lambda: Runner.build_dataloader(dict(part, dataset=[1, 2])))
    assert text.startswith("DataLoader cannot be built (ValueError: prefetch_factor option could")


def test_a_layer_that_there_is_not():
    norm = dict(type="SyncBM")
    text = said(lambda: build_norm_layer(norm, 8), dict(model=dict(norm_cfg=norm)))
    assert text.startswith("model.norm_cfg.type: mmdet has no model 'SyncBM'. Near matches: ")
    assert said(lambda: build_conv_layer(dict(type="Foo"), 1, 1, 1)) == (
        "mmdet has no model 'Foo'. A class of your own is found if custom_imports names its module."
    )


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
