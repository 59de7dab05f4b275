"""tools/study: every declared run is a config that loads, and its hash says what it depends on."""

import copy
from pathlib import Path

import methods
import pytest
from children import Children
from compose import Run, check_bases, config_hash, model_base, nested, runs_of, training_hash
from grid import DATA, STUDIES, Study
from helpers.paths import CONFIGS
from jobs import make_jobs, parse
from methods import METHODS
from mmdet.registry import MODELS
from mmengine.config import Config

from misalign_det.apis.model_check import check_model
from misalign_det.errors import InputError

THERE = [name for name, m in METHODS.items() if model_base(m, "effnet-lite0").is_file()]


def test_studies_name_methods_and_data_sets():
    assert len(THERE) > 20
    for study in STUDIES.values():
        assert set(study.methods) <= set(METHODS) and set(study.data) <= set(DATA)
        assert len(set(study.methods)) == len(study.methods)
        runs = runs_of(study)
        assert (
            len(runs)
            == len(set(runs))
            == (len(study.methods) * len(study.data) * len(study.seeds) * len(study.lengths))
        )
    for method in METHODS.values():
        assert method.baseline is None or method.baseline in METHODS
        assert method.trained_as is None or METHODS[method.trained_as].base == method.base


@pytest.mark.parametrize("name", STUDIES)
def test_a_method_is_tested_with_a_checkpoint_of_its_own_training(name, tmp_path):
    """Options of a method that is `trained_as` another one must not change the training."""
    study = STUDIES[name]
    runs = runs_of(Study(name, study.methods, study.data[:1], seeds=(0,)))
    jobs = make_jobs(runs, "val", tmp_path)
    assert sorted(map(str, runs)) == sorted(str(run) for job in jobs for run in job.tests)
    trained = {METHODS[run.method].trained_as or run.method for run in runs}
    assert {job.training.method for job in jobs} == trained


@pytest.mark.parametrize("name", THERE)
def test_every_method_is_a_model(name):
    cfg = parse(Run(name, "hit-uav", 7, 6), "val")
    check_model(cfg.model)
    model = MODELS.build(copy.deepcopy(cfg.model))
    assert model.bbox_head.num_classes == 4
    assert cfg.randomness.seed == 7
    if "clnms" in name:  # at the threshold of the NMS that it replaces
        assert cfg.model.test_cfg.nms.type == "CLBalancedNMS"
        parent = parse(Run(METHODS[name].trained_as, "hit-uav", 7, 6), "val")
        assert cfg.model.test_cfg.nms.iou_threshold == parent.model.test_cfg.nms.iou_threshold


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("split", [None, "val", "test"])
def test_every_data_set(data, split):
    cfg = parse(Run("fcos", data, 1, DATA[data].epochs), split)
    assert cfg.train_cfg.max_epochs == DATA[data].epochs
    assert cfg.model.bbox_head.num_classes == DATA[data].num_classes
    assert len(cfg.train_dataloader.dataset.metainfo.classes) == DATA[data].num_classes
    if split is None:
        assert cfg.test_dataloader is cfg.val_dataloader is cfg.val_evaluator is None
    else:
        dataset = cfg.test_dataloader.dataset
        assert cfg.test_evaluator.ann_file == f"{cfg.data_root}annotations/instances_{split}.json"
        assert dataset.ann_file.endswith(f"annotations/instances_{split}.json")
        assert dataset.test_mode and (data != "shapes" or dataset.data_prefix.img == f"{split}/")


@pytest.mark.parametrize("epochs", [4, 12, 36])
def test_the_schedule_ends_with_the_training(epochs):
    cfg = parse(Run("fcos", "bccd", 0, epochs), None)
    warm_up, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == cosine.end == cosine.T_max == epochs
    assert (warm_up.end, warm_up.by_epoch, cosine.type) == (50, False, "CosineAnnealingLR")
    assert cfg.default_hooks.checkpoint.max_keep_ckpts == 1
    assert cfg.custom_hooks[0].type == "ChannelsLastHook"


def test_what_starts_in_an_epoch_starts_at_the_same_share_of_any_length():
    for name in ("tood", "tood-anchor4"):
        starts = [
            parse(Run(name, "bccd", 0, epochs), None).model.train_cfg.initial_epoch
            for epochs in (6, 12, 36)
        ]
        assert starts == [2, 4, 12]
    assert parse(Run("tood-initial", "bccd", 0, 6), None).model.train_cfg.initial_epoch == 6


def test_lengths_multiply_the_epochs():
    study = Study("s", ("fcos",), ("bccd", "hit-uav"), seeds=(5,), lengths=(0.5, 3))
    assert [(r.data, r.epochs) for r in runs_of(study)] == [
        ("bccd", 6), ("hit-uav", 3), ("bccd", 36), ("hit-uav", 18)]  # fmt: skip


def test_the_other_backbone():
    cfg = parse(Run("fcos", "bccd", 0, 12, "r18"), None)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.init_cfg.checkpoint) == ("ResNet", "torchvision://resnet18")
    assert backbone.norm_eval and not backbone.norm_cfg.requires_grad
    # Every option is of an argument that the backbone has.
    model = copy.deepcopy(cfg.model)
    model.backbone.init_cfg = None
    assert not any(p.requires_grad for p in MODELS.build(model).backbone.layer1.parameters())


def test_missing_bases_are_named_with_what_can_run(monkeypatch):
    monkeypatch.setitem(METHODS, "new", methods.Method("new", "unheard-of"))
    with pytest.raises(InputError, match=r"lacks unheard-of_effnet-lite0_fpn.py.*--methods fcos$"):
        check_bases(["fcos", "new"], "effnet-lite0")
    check_bases(["fcos"], "effnet-lite0")
    with pytest.raises(InputError, match="no configs/_base_/models/unheard-of"):
        parse(Run("new", "bccd", 0, 12), None)


def test_nested():
    assert nested({"a.b": dict(c=1), "a.b.d": 2, "e": 3}) == dict(a=dict(b=dict(c=1, d=2)), e=3)
    towers = copy.deepcopy(methods.FCOS_TOWERS)
    nested({"model.bbox_head": methods.FCOS_TOWERS, "model.bbox_head.num_classes": 3})
    assert methods.FCOS_TOWERS == towers


class TestHash:
    RUN = Run("fcos", "shapes", 0, 8)

    def test_leaves_out_paths_and_workers(self, monkeypatch):
        cfg = parse(self.RUN, "val")
        monkeypatch.setenv("MISALIGN_DET_SHAPES", "/elsewhere/set")
        other = parse(self.RUN, "val")
        assert other.test_evaluator.ann_file.startswith("/elsewhere/set/")
        assert config_hash(cfg) == config_hash(other)
        other.train_dataloader.num_workers = 7
        assert config_hash(cfg) == config_hash(other)

    @pytest.mark.parametrize(
        "option",
        ["model.bbox_head.stacked_convs", "optim_wrapper.optimizer.lr", "randomness.seed",
         "train_cfg.max_epochs", "train_dataloader.batch_size"],
    )  # fmt: skip
    def test_of_training(self, option):
        cfg = parse(self.RUN, "val")
        before = config_hash(cfg), training_hash(cfg)
        cfg.merge_from_dict({option: 3})
        assert config_hash(cfg) != before[0] and training_hash(cfg) != before[1]

    def test_of_testing(self):
        cfg = parse(self.RUN, "val")
        before = config_hash(cfg), training_hash(cfg)
        assert before[1] == training_hash(parse(self.RUN, None))
        cfg.merge_from_dict({"model.test_cfg.score_thr": 0.2})
        assert config_hash(cfg) != before[0] and training_hash(cfg) == before[1]
        bccd = Run("fcos", "bccd", 0, 8)
        assert config_hash(parse(bccd, "val")) != config_hash(parse(bccd, "test"))
        assert training_hash(parse(bccd, "val")) == training_hash(parse(bccd, "test"))


def test_variants_share_a_training(tmp_path):
    names = ["retinanet", "retinanet-clnms", "iac-dc-clnms_retinanet"]
    names = [*names, "fcos", "fcos-voting"]
    jobs = make_jobs([Run(name, "bccd", 0, 12) for name in names], "val", tmp_path)
    voting = jobs.pop()
    assert [run.method for run in voting.tests] == ["fcos", "fcos-voting"]
    assert len(set(voting.hashes.values())) == 2
    assert [job.training.method for job in jobs] == ["retinanet", "iac-dc_retinanet"]
    assert [[run.method for run in job.tests] for job in jobs] == [names[:2], names[2:3]]
    assert len(set(jobs[0].hashes.values())) == 2


def test_a_variant_that_changes_training_is_refused(tmp_path, monkeypatch):
    wrong = methods.changed(
        METHODS["fcos"], "wrong", {"optim_wrapper.optimizer.lr": 1}, trained_as="fcos"
    )
    monkeypatch.setitem(METHODS, "wrong", wrong)
    with pytest.raises(ValueError, match="options of wrong change its training"):
        make_jobs([Run("wrong", "bccd", 0, 12)], "val", tmp_path)


def test_the_papers_settings_are_those_of_the_shipped_configs():
    """Of the parts of Triple-head Network and of the other papers, on another backbone."""
    shipped = {
        "jla_triplehead-plain": "jla_triplehead-plain_r50_fpn_1x_coco",
        "jla_triplehead-confidence": "jla_triplehead-confidence_r50_fpn_1x_coco",
        "jla_triplehead-refine": "jla_triplehead-refine_r50_fpn_1x_coco",
        "jla-k25_fcos": "jla-k25_fcos_r50_fpn_1x_coco",
        "jla-theta07_fcos": "jla-theta07_fcos_r50_fpn_1x_coco",
        "spatial-align_fcos": "spatial-align_fcos_r50_fpn_1x_coco",
        "rfa_fcos": "rfa_fcos_r50_fpn_1x_coco",
        "fcos-no-centerness": "fcos-no-centerness_r50_fpn_1x_coco",
    }
    same = ("type", "refine_mode", "with_iou_branch", "score_mode", "iou_mode", "rfa_position")
    for method, name in shipped.items():
        cfg = parse(Run(method, "bccd", 0, 12), None)
        paper = Config.fromfile(Path(CONFIGS, f"{name}.py"))
        for key in same:
            assert cfg.model.bbox_head.get(key) == paper.model.bbox_head.get(key), (method, key)
        assigners = [(c.model.get("train_cfg") or {}).get("assigner") for c in (cfg, paper)]
        assert assigners[0] == assigners[1], method


def test_workers_are_options_of_the_command():
    assert Children({}, 2).options("train_dataloader") == [
        "--cfg-options", "train_dataloader.num_workers=2",
        "train_dataloader.persistent_workers=True"]  # fmt: skip
    assert "a.persistent_workers=False" in Children({}).options("a")


OWN_BASES = {
    name: base
    for name in THERE
    for base in [model_base(methods.Method(name, name), "effnet-lite0")]
    if METHODS[name].base != name and base.is_file()
}


@pytest.mark.parametrize("name", OWN_BASES)
def test_a_base_of_the_same_name_is_the_same_model(name):
    own = parse(Run(name, "bccd", 0, 12), "val").model
    base = Config.fromfile(OWN_BASES[name]).model
    own.bbox_head.num_classes = base.bbox_head.num_classes
    assert own.to_dict() == base.to_dict()
