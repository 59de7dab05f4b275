"""An option of the command line that nothing reads is refused, one that something reads is not."""

import copy
import inspect
import re

import pytest
from helpers.paths import MMDET_CONFIGS
from mmdet.models.dense_heads import FCOSHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from misalign_det.apis import config_options
from misalign_det.apis.config_keys import top_level_keys
from misalign_det.apis.config_lookup import packaged_configs
from misalign_det.apis.config_options import merge_options
from misalign_det.apis.option_hints import wrong_value
from misalign_det.errors import InputError

CONFIG = packaged_configs()["jla_triplehead_r18_fpn_quickstart_shapes"]


@pytest.fixture(scope="module")
def plain():
    return Config.fromfile(CONFIG)


@pytest.fixture
def warned(monkeypatch):
    """The warnings of the test."""
    lines = []
    monkeypatch.setattr(config_options, "print_log", lambda text, logger, level: lines.append(text))
    return lines


def refused(plain, options):
    with pytest.raises(InputError) as error:
        merge_options(copy.deepcopy(plain), options)
    return str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"train_dataloader.batch_size": 4},
        {"train_dataloader.prefetch_factor": 4},
        {"train_dataloader.num_batch_per_epoch": 4},
        {"train_dataloader.dataset.indices": 5},
        {"train_dataloader.dataset.pipeline.2.scale": (640, 480)},
        {"train_dataloader.dataset.pipeline.0.to_float32": True},
        {"train_dataloader.dataset.filter_cfg.min_size": 1},
        {"train_dataloader.dataset.metainfo.palette": [(1, 2, 3)]},
        {"model.train_cfg.assigner.topk": 9},
        {"model.test_cfg.min_bbox_size": 1},
        {"model.test_cfg.box_voting.sigma": 0.025},
        {"model.bbox_head.norm_cfg.requires_grad": False},
        {"model.backbone.with_cp": True},
        {"model.bbox_head.loss_cls.gamma": 1},
        {"model.backbone.init_cfg": None},
        {"model.test_cfg.nms.gamma": 0.5, "model.test_cfg.nms.type": "CLBalancedNMS"},
        {"model.test_cfg.nms.class_agnostic": True},
        {"model.test_cfg.nms.split_thr": 100},
        {"randomness.seed": 1},
        {"randomness.deterministic": True},
        {"randomness": {"seed": 2}},
        {"preflight.extra_categories": "skip"},
        {"preflight.enabled": False},
        {"default_hooks.checkpoint.interval": 5},
        {"default_hooks.checkpoint.save_best": "auto"},
        {"default_hooks.logger.interval": 5},
        {"default_hooks.mine.type": "IterTimerHook"},
        {"default_hooks.logger": None},
        {"default_hooks.mine": None},
        {"custom_hooks": [{"type": "NumClassCheckHook"}]},
        {"load_from": "x.pth", "resume": True},
        {"find_unused_parameters": True},
        {"compile": True},
        {"compile.backend": "eager"},
        {"log_level": "DEBUG"},
        {"work_dir": "w"},
        {"sync_bn": "torch"},
        {"efficient_conv_bn_eval": ["backbone"]},
        {"tta_model": {"type": "DetTTAModel"}},
        {"optim_wrapper.accumulative_counts": 2},
        {"optim_wrapper.optimizer.amsgrad": True},
        {"optim_wrapper.dtype": "bfloat16"},
        {"optim_wrapper.paramwise_cfg.bypass_duplicate": True},
        {"optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult": 0.1},
        {"optim_wrapper.clip_grad.max_norm": 3, "optim_wrapper.clip_grad.foreach": True},
        {"optim_wrapper.clip_grad": {"type": "value", "clip_value": 1, "_delete_": True}},
        {"param_scheduler.0.end": 3},
        {"param_scheduler.0.convert_to_iter_based": True},
        {"auto_scale_lr.base_batch_size": 8},
        {"auto_scale_lr.enable": True},
        {"env_cfg.dist_cfg.timeout": 9},
        {"env_cfg.dist_cfg.backend": "gloo"},
        {"env_cfg.mp_cfg.opencv_num_threads": 1},
        {"env_cfg.resource_limit": 9},
        {"train_cfg.max_epochs": 3},
        {"train_cfg.dynamic_intervals": []},
        {"val_evaluator.classwise": True},
        {"test_evaluator.ann_file": "mine.json"},
        {"custom_imports.imports": ["misalign_det"]},
        {"visualizer.name": "mine"},
        {"model.neck": {"_delete_": True, "type": "FPN", "in_channels": [1], "odd": 1}},
        {"model.neck._delete_": True, "model.neck.type": "FPN", "model.neck.in_channels": [1]},
    ],
    ids=lambda options: ",".join(options),
)
def test_options_that_something_reads(plain, warned, options):
    merge_options(copy.deepcopy(plain), options)
    assert warned == []


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("max_epochs", "train_cfg.max_epochs"),
        ("val_interval", "train_cfg.val_interval"),
        ("lr", "optim_wrapper.optimizer.lr"),
        ("optimizer.lr", "optim_wrapper.optimizer.lr"),
        ("trian_cfg.max_epochs", "train_cfg.max_epochs"),
        ("loadfrom", "load_from"),
        ("train_cfg.max_epoch", "train_cfg.max_epochs"),
        ("optim_wrapper.optimizer.lrr", "optim_wrapper.optimizer.lr"),
        ("optim_wrapper.clip_gard.max_norm", "optim_wrapper.clip_grad.max_norm"),
        ("train_dataloader.batchsize", "train_dataloader.batch_size"),
        ("randomness.sed", "randomness.seed"),
        ("preflight.enable", "preflight.enabled"),
        ("model.bbox_head.num_class", "model.bbox_head.num_classes"),
        ("model.train_cfg.assigner.tok", "model.train_cfg.assigner.topk"),
        ("default_hooks.chekpoint.interval", "default_hooks.checkpoint.interval"),
        ("default_hooks.logger.intervall", "default_hooks.logger.interval"),
        ("train_dataloader.dataset.pipeline.2.scal", "train_dataloader.dataset.pipeline.2.scale"),
        ("param_scheduler.0.edn", "param_scheduler.0.end"),
        ("auto_scale_lr.base_batchsize", "auto_scale_lr.base_batch_size"),
        ("env_cfg.cudnn_bench", "env_cfg.cudnn_benchmark"),
        ("env_cfg.dist_cfg.time_out", "env_cfg.dist_cfg.timeout"),
        ("model.test_cfg.score_threshold", "model.test_cfg.score_thr"),
        ("model.test_cfg.score_thrr", "model.test_cfg.score_thr"),
        ("model.test_cfg.iou_threshold", "model.test_cfg.nms.iou_threshold"),
        ("model.test_cfg.box_voting.sigm", "model.test_cfg.box_voting.sigma"),
        ("optim_wrapper.clip_grad.maxnorm", "optim_wrapper.clip_grad.max_norm"),
        ("optim_wrapper.paramwise_cfg.norm_decay", "optim_wrapper.paramwise_cfg.norm_decay_mult"),
        (
            "train_dataloader.dataset.filter_cfg.filter_empty",
            "train_dataloader.dataset.filter_cfg.filter_empty_gt",
        ),
        ("val_evaluator.annfile", "val_evaluator.ann_file"),
        ("metainfo.classes", "train_dataloader.dataset.metainfo.classes"),
        ("train_pipeline.0.type", "train_dataloader.dataset.pipeline.0.type"),
    ],
)
def test_the_near_match_is_named(plain, key, near):
    said = refused(plain, {key: 3})
    assert said.startswith(f"--cfg-options {key}: ")
    assert re.search(rf"Did you mean (\S+ or )?{re.escape(near)}( or |\?)", said), said


def test_a_variable_whose_value_stands_elsewhere():
    cfg = Config({"max_epochs": 300, "train_cfg": {"max_epochs": 300}})
    said = refused(cfg, {"max_epochs": 3})
    assert "max_epochs is a variable that is used only while the config file is parsed" in said
    assert "Did you mean train_cfg.max_epochs?" in said


def test_another_variable_is_a_warning(warned):
    cfg = Config({"max_epochs": 300, "train_cfg": {"max_epochs": 12}})
    assert merge_options(cfg, {"max_epochs": 3}).max_epochs == 3
    assert len(warned) == 1 and "max_epochs is a variable of the config file" in warned[0]


def test_an_equal_number_elsewhere_means_nothing(warned):
    cfg = Config({"size": 300, "train_cfg": {"max_epochs": 300}})
    assert merge_options(cfg, {"size": 3}).size == 3
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (
            "train_dataloader.dataset.data_prefix.imgg",
            "Did you mean train_dataloader.dataset.data_prefix.img?",
        ),
        (
            "train_dataloader.dataset.data_prefix.folder",
            "Any key can be given there, and may have no effect.",
        ),
        ("default_hooks.checkpoint.mine", "Any key can be given there, and may have no effect."),
    ],
)
def test_a_new_key_beside_keys_that_nobody_can_know_is_a_warning(plain, warned, key, said):
    merge_options(copy.deepcopy(plain), {key: 0.5})
    assert warned == [f"--cfg-options {key}: a new key; the config does not have it. {said}"]


STOCK = {  # what the heads of a few stock configs read beyond the usual keys
    "atss/atss_r50_fpn_1x_coco.py": {},
    "yolox/yolox_s_8xb8-300e_coco.py": {"nms_pre": 9},
    "yolo/yolov3_d53_8xb8-320-273e_coco.py": {"conf_thr": 0.1},
    "centernet/centernet_r18_8xb16-crop512-140e_coco.py": {"topk": 9},
    "cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py": {"corner_topk": 9},
    "yolact/yolact_r50_1xb8-55e_coco.py": {"iou_thr": 0.4, "top_k": 9, "mask_thr_binary": 0.4},
    "rtmdet/rtmdet-ins_s_8xb32-300e_coco.py": {"mask_thr_binary": 0.4},
    "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py": {"mask_thr": 0.4},
    "glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py": {"chunked_size": 9},
    "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py": {},
}


@pytest.mark.parametrize("name", STOCK)
def test_what_heads_of_mmdet_read_in_testing(name, warned):
    """Also where the config does not have the key."""
    plain = Config.fromfile(MMDET_CONFIGS / name)
    plain.model.test_cfg = dict(nms=dict(type="nms", iou_threshold=0.5))
    read = dict(score_thr=0.1, max_per_img=9, **STOCK[name])
    merge_options(copy.deepcopy(plain), {f"model.test_cfg.{key}": read[key] for key in read})
    assert warned == []
    said = refused(plain, {"model.test_cfg.score_threshold": 0.9})
    assert "model.test_cfg.score_thr?" in said


def test_two_stages_in_testing(warned):
    plain = Config.fromfile(MMDET_CONFIGS / "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py")
    assert "(of RPNHead) has no 'score_threshold'" in refused(
        plain, {"model.test_cfg.rpn.score_threshold": 0.9}
    )
    merge_options(copy.deepcopy(plain), {"model.test_cfg.rpn.min_bbox_size": 1})
    merge_options(copy.deepcopy(plain), {"model.test_cfg.rcnn.mask_thr_binary": 1})
    assert warned == []
    merge_options(copy.deepcopy(plain), {"model.test_cfg.rcnn.score_threshold": 1})
    merge_options(copy.deepcopy(plain), {"model.test_cfg.score_thr": 1})
    assert len(warned) == 2 and "Did you mean model.test_cfg.rcnn.score_thr?" in warned[1]


class HeadOfMine(FCOSHead):
    """Of a module that is none of mmdet's."""


def test_a_head_of_another_package_may_read_any_key(warned, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, "HeadOfMine", HeadOfMine)
    cfg = Config.fromfile(MMDET_CONFIGS / "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py")
    said = refused(cfg, {"model.test_cfg.box_voting.sigma": 0.1})
    assert "(of FCOSHead) has no 'box_voting'. BoxVotingHead reads it: bbox_head=dict(" in said
    cfg.model.bbox_head.type = "HeadOfMine"
    merge_options(cfg, {"model.test_cfg.mine": 1})
    assert len(warned) == 1 and "a new key" in warned[0]


def test_the_arguments_are_listed_where_nothing_is_near(plain):
    said = refused(plain, {"model.test_cfg.nms.gamma": 0.5})
    assert "model.test_cfg.nms (NMSop)" in said or "model.test_cfg.nms (nms)" in said
    assert "It takes " in said and "iou_threshold" in said and "_scope_" not in said
    assert "If your own code reads it, put it into the config file." in refused(
        plain, {"zzzzzz": 1}
    )


def test_each_fault_has_a_line(plain):
    said = refused(plain, {"max_epochs": 3, "log_level": "INFO", "train_cfg.max_epoch": 3})
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "--cfg-options max_epochs",
        "--cfg-options train_cfg.max_epoch",
    ]


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (
            "train_dataloader.dataset.pipeline.5.scale",
            "pipeline is a list of 5; '5' is not an index of it",
        ),
        ("train_dataloader.dataset.pipeline.x.scale", "'x' is not an index of it"),
        ("train_dataloader.dataset.pipeline.4", "cannot be replaced alone"),
        ("model.bbox_head.strides.0.x", "strides.0 is 8 and has no keys"),
        ("train_cfg.max_epochs.x", "train_cfg.max_epochs is 1 and has no keys"),
        ("load_from.x", "load_from is None"),
    ],
)
def test_options_that_mmengine_cannot_put_anywhere(plain, key, what):
    cfg = copy.deepcopy(plain)
    cfg.train_cfg.max_epochs = 1
    cfg.load_from = None
    assert what in refused(cfg, {key: 3})


def test_the_last_place_of_a_list(plain):
    key = "train_dataloader.dataset.pipeline.4.meta_keys"
    cfg = merge_options(copy.deepcopy(plain), {key: ("img_id",)})
    assert cfg.train_dataloader.dataset.pipeline[4].meta_keys == ("img_id",)


def test_types_that_are_classes(warned):
    cfg = Config({"train_cfg": {"type": "EpochBasedTrainLoop"}, "model": {"type": nn.Linear}})
    assert merge_options(cfg, {"model.bias": True}).model.bias is True
    with pytest.raises(InputError, match=r"model \(Linear\) has no 'biass'. Did you mean"):
        merge_options(cfg, {"model.biass": True})


def test_the_new_type_counts(plain):
    """The options may change the type, too."""
    assert "gama" in refused(
        plain, {"model.test_cfg.nms.type": "CLBalancedNMS", "model.test_cfg.nms.gama": 1}
    )
    said = refused(plain, {"optim_wrapper.optimizer.type": "SGD", "optim_wrapper.optimizer.eps": 1})
    assert "optim_wrapper.optimizer (SGD) has no 'eps'" in said


# --- what a call takes -----------------------------------------------------------------------


def test_what_the_runner_reads_is_known():
    """Each key that mmengine's runner asks the whole config for."""
    asked = set(re.findall(r"cfg\.get\(\s*'(\w+)'", inspect.getsource(Runner)))
    local = {
        "seed",
        "type",
        "cudnn_benchmark",
        "mp_cfg",
        "dist_cfg",
        "resource_limit",
        "num_workers",
        "batch_size",
        "base_batch_size",
        "enable",
        "optimizer",
    }
    assert {"train_dataloader", "sync_bn", "load_from"} <= asked
    assert asked - local <= top_level_keys()


@pytest.mark.parametrize(
    "path, found",
    [("seed", "randomness.seed"), ("lr_config.step", "param_scheduler"),
     ("runner.max_epochs", "train_cfg"), ("data.samples_per_gpu", "train_dataloader"),
     ("resume_from", "--resume")],
)  # fmt: skip
def test_keys_of_mmdet_2(path, found):
    with pytest.raises(InputError, match=f"is a key of mmdet 2. In mmdet 3 it is .*{found}"):
        merge_options(Config(dict(train_cfg=dict(max_epochs=1))), {path: 1})


def test_a_key_of_the_dataset_inside_a_wrapper():
    inner = dict(type="CocoDataset", ann_file="a.json")
    joined = dict(type="ConcatDataset", datasets=[inner, dict(inner)])
    cfg = Config(dict(train_dataloader=dict(dataset=joined)))
    with pytest.raises(
        InputError,
        match="Did you mean train_dataloader.dataset.datasets.0.indices "
        "or train_dataloader.dataset.datasets.1.indices",
    ):
        merge_options(cfg, {"train_dataloader.dataset.indices": 10})


def test_a_key_that_lies_deeper():
    inner = dict(type="FCOS", test_cfg=dict(score_thr=0.1))
    model = dict(type="SemiBaseDetector", detector=inner)
    cfg = Config(dict(model=model, tta_model=dict(module=inner)))
    with pytest.raises(InputError, match=r"Did you mean model\.detector\.test_cfg\.score_thr\?$"):
        merge_options(cfg, {"model.test_cfg.score_thr": 0.2})


@pytest.mark.parametrize(
    "path, good, bad",
    [("train_cfg.max_epochs", 3, "abc"), ("train_cfg.max_epochs", 1, 0),
     ("train_cfg.val_interval", 2, 0.5), ("train_dataloader.batch_size", 4, 2.5),
     ("val_dataloader.num_workers", 0, -1), ("optim_wrapper.optimizer.lr", 1e-3, "abc"),
     ("optim_wrapper.optimizer.lr", 0.0, -1), ("randomness.seed", None, "x"),
     ("randomness.seed", 0, True), ("env_cfg.mp_cfg.mp_start_method", "fork", "foo"),
     ("train_dataloader.prefetch_factor", 2, 0)],
)  # fmt: skip
def test_numbers_that_mmengine_would_choke_on(path, good, bad):
    assert wrong_value(path, good) is None
    assert path in wrong_value(path, bad)
    cfg = Config({})
    cfg.merge_from_dict({path: good})
    with pytest.raises(InputError, match=f"--cfg-options {path}={bad}: it has to be (a|one) "):
        merge_options(cfg, {path: bad})


def test_options_of_box_voting_and_of_the_head_inside():
    cfg = Config.fromfile(MMDET_CONFIGS / "atss/atss_r50_fpn_1x_coco.py")
    cfg.model.bbox_head.update(type="BoxVotingHead", head_type="ATSSHead")
    cfg.model.test_cfg.box_voting = dict(sigma=0.025)
    for key in ("bbox_head.stacked_convs", "bbox_head.reg_decoded_bbox", "bbox_head.head_type",
                "test_cfg.box_voting.sigma", "test_cfg.box_voting.iou_threshold"):  # fmt: skip
        merge_options(copy.deepcopy(cfg), {f"model.{key}": 1})
    for key, near in (
        ("bbox_head.num_class", "bbox_head.num_classes"),
        ("bbox_head.reg_decoded_boxes", "bbox_head.reg_decoded_bbox"),
        ("test_cfg.box_voting.iou_thresh", "test_cfg.box_voting.iou_threshold"),
    ):
        assert f"Did you mean model.{near}?" in refused(cfg, {f"model.{key}": 1})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("optim_wrapper.optimizer.weight_decay", "abc"), "'abc' is not a number; the config"),
        (("param_scheduler.0.end", "1k"), "'1k' is not a number; the config has a number, 50"),
        (("model.neck.in_channels", "foo"), "'foo' is not a number; the config has numbers, [8, 1"),
        (("model.neck.in_channels", [8, "1 6"]), "'1 6' is not a number"),
        (("optim_wrapper.optimizer.weight_decay", 0), None),
        (("optim_wrapper.optimizer.weight_decay", None), None),
        (("optim_wrapper.loss_scale", "dynamic"), None),
        (("model.neck.start_level", True), None),
        (("model.neck.add_extra_convs", "on_output"), None),
    ],
)
def test_a_text_in_place_of_a_number(option, said):
    cfg = Config(dict(
        model=dict(neck=dict(in_channels=[8, 16], start_level=1, add_extra_convs=False)),
        optim_wrapper=dict(
            type="AmpOptimWrapper", loss_scale=512.0, optimizer=dict(lr=1, weight_decay=0.1)
        ),
        param_scheduler=[dict(type="LinearLR", end=50)],
    ))  # fmt: skip
    if said is None:
        merge_options(cfg, dict([option]))
    else:
        with pytest.raises(InputError) as error:
            merge_options(cfg, dict([option]))
        assert str(error.value).startswith(f"--cfg-options {option[0]}=")
        assert said in str(error.value)
