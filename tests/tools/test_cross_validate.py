"""cross_validate.py: folds, combinations, and two real runs."""

import copy
import json
from types import SimpleNamespace

import pytest
from helpers.tiny_detectors import tool
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config

from misalign_det.errors import InputError
from misalign_det.utils import leaf_datasets


@pytest.fixture(scope="module")
def module():
    return tool("analysis", "cross_validate")


def test_folds_hold_every_image_once(module):
    dataset = dict(
        images=[dict(id=i) for i in range(10)],
        annotations=[dict(id=i, image_id=i % 10) for i in range(25)],
        categories=[dict(id=1)],
    )
    pairs = module.deal(dataset, 3, seed=0)
    held_out = [image["id"] for _, part in pairs for image in part["images"]]
    assert sorted(held_out) == list(range(10))
    for rest, part in pairs:
        ids = [{i["id"] for i in side["images"]} for side in (rest, part)]
        assert not ids[0] & ids[1] and len(ids[0] | ids[1]) == 10
        for side, own in zip((rest, part), ids):
            assert {a["image_id"] for a in side["annotations"]} <= own
        assert len(rest["annotations"]) + len(part["annotations"]) == 25
    with pytest.raises(InputError, match="10 images"):
        module.deal(dataset, 11, seed=0)


def test_combinations(module):
    assert module.combinations(["a=1,2", "b.c=x"]) == [("a=1", "b.c=x"), ("a=2", "b.c=x")]


def test_commas_in_brackets_are_of_the_value(module):
    grid = ["m=[8,11],[9,11]", "a=(1, 2),{'x': [3,4]},5"]
    assert module.combinations(grid) == [
        (m, a) for m in ("m=[8,11]", "m=[9,11]") for a in ("a=(1, 2)", "a={'x': [3,4]}", "a=5")
    ]


@pytest.mark.parametrize(
    "options, said",
    [
        (["--grid", "a=[1,2"], "--grid a=[1,2: the brackets do not match"),
        (["--grid", "a=1],[2"], "--grid a=1],[2: the brackets do not match"),
        (["--grid", "a=1", "--only", "0"], "--only must be at least 1"),
        (["--grid", "a=1", "--only", "-1"], "--only must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_named(module, capsys, options, said):
    with pytest.raises(SystemExit):
        module.parse_args(["config", *options])
    assert said in capsys.readouterr().err


def test_ids_may_be_texts_and_numbers(module):
    dataset = dict(images=[dict(id=i) for i in (3, "b", 1, "a")], annotations=[], categories=[])
    pairs = module.deal(dataset, 2, seed=0)
    assert {i["id"] for _, part in pairs for i in part["images"]} == {3, "b", 1, "a"}


def config(train=None, **parts):
    both = dict(type="CocoDataset", metainfo=dict(classes=("a",)))
    leaf = dict(both, data_root="/train", ann_file="t.json", data_prefix=dict(img="t/"),
                filter_cfg=dict(min_size=32), pipeline=[dict(type="T")])  # fmt: skip
    val = dict(both, data_root="/val", ann_file="v.json", data_prefix=dict(img="v/"),
               test_mode=True, pipeline=[dict(type="V")])  # fmt: skip
    evaluators = [dict(type="CocoMetric", ann_file="/val/v.json", metric="bbox"),
                  dict(type="mmdet.VOCMetric")]  # fmt: skip
    return Config(dict(
        train_dataloader=dict(dataset=train(leaf) if train else leaf),
        val_dataloader=dict(dataset=dict(type="ConcatDataset", datasets=[val])),
        val_evaluator=evaluators, **parts))  # fmt: skip


WRAPPERS = {
    "none": lambda leaf: leaf,
    "repeat": lambda leaf: dict(type="RepeatDataset", times=2, dataset=leaf),
    "mix": lambda leaf: dict(type="MultiImageMixDataset", pipeline=[], dataset=dict(
        type="ConcatDataset", datasets=[leaf])),
}  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_both_parts_come_from_the_training_set(module, wrapper, tmp_path):
    cfg = config(WRAPPERS[wrapper])
    before = copy.deepcopy(cfg.to_dict())
    module.use_fold(cfg, "/cv/rest.json", "/cv/held-out.json").dump(tmp_path / "fold.py")
    assert cfg.to_dict() == before
    made = Config.fromfile(tmp_path / "fold.py")
    ((_, train),) = leaf_datasets(made.train_dataloader.dataset)
    assert (train.data_root, train.ann_file, train.pipeline[0].type) == (
        "/train", "/cv/rest.json", "T")  # fmt: skip
    assert made.train_dataloader.dataset.type == cfg.train_dataloader.dataset.type
    val = made.val_dataloader.dataset
    assert (val.type, val.data_root, val.data_prefix.img) == ("CocoDataset", "/train", "t/")
    assert (val.ann_file, val.pipeline[0].type, val.test_mode) == ("/cv/held-out.json", "V", True)
    assert "filter_cfg" not in val and val.metainfo.classes == ("a",)
    assert made.val_evaluator[0].ann_file == "/cv/held-out.json"
    assert "ann_file" not in made.val_evaluator[1]


def test_a_part_of_the_training_set_is_evaluated_on_the_whole_fold(module):
    """CocoMetric counts the objects of every image of the annotation file."""
    made = module.use_fold(config(lambda leaf: dict(leaf, indices=4)), "r.json", "h.json")
    assert made.train_dataloader.dataset.indices == 4
    assert "indices" not in made.val_dataloader.dataset


def test_a_class_for_a_type(module, tmp_path):
    """As mmengine's pure Python configs give it."""
    cfg = config(lambda leaf: dict(leaf, type=CocoDataset))
    made = module.use_fold(cfg, "r.json", "h.json")
    assert DATASETS.get(made.val_dataloader.dataset.type) is CocoDataset


def test_several_training_sets_and_other_formats_are_refused(module, tmp_path):
    with pytest.raises(InputError, match="ConcatDataset.*holds 2 datasets.*datasets.1"):
        module.training_annotations(
            config(lambda leaf: dict(type="ConcatDataset", datasets=[leaf, leaf]))
        )
    with pytest.raises(InputError, match="VOCDataset.*COCO format"):
        module.training_annotations(config(lambda leaf: dict(leaf, type="VOCDataset")))
    with pytest.raises(InputError, match="no annotation file /train/t.json"):
        module.training_annotations(config())
    with pytest.raises(InputError, match="holds 0 datasets"):
        module.training_annotations(Config(dict()))


def test_the_metric_is_found_under_its_name(module):
    cfg = config()
    assert module.metric_name(cfg) == "coco/bbox_mAP"
    cfg.val_evaluator[0].update(prefix="mine", metric=["bbox", "segm"])
    assert module.metric_name(cfg) == "mine/bbox_mAP"
    cfg.val_evaluator = cfg.val_evaluator[0]
    assert module.metric_name(cfg) == "mine/bbox_mAP"
    for change in (dict(metric="proposal"), dict(metric_items=["mAP_50"]), dict(type="VOCMetric")):
        cfg = config()
        cfg.val_evaluator[0].update(change)
        with pytest.raises(InputError, match="no COCO AP of boxes"):
            module.metric_name(cfg)
    with pytest.raises(InputError, match="no val_dataloader"):
        module.metric_name(Config(dict(val_dataloader=None)))


def test_the_last_evaluation_counts(module, tmp_path):
    def log(start, rows):
        folder = tmp_path / start / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("\n".join(map(json.dumps, rows)))

    with pytest.raises(InputError, match="has no evaluation"):
        module.last_metric(tmp_path, "coco/bbox_mAP")
    train = dict(loss=1.0, step=1)
    log("1", [train])
    with pytest.raises(InputError, match="has no evaluation"):
        module.last_metric(tmp_path, "coco/bbox_mAP")
    log("2", [train, {"coco/bbox_mAP": 0.3, "step": 1}, train, {"coco/bbox_mAP": 0.2, "step": 2}])
    assert module.last_metric(tmp_path, "coco/bbox_mAP") == 0.2
    # A detector that finds nothing leaves no figure: CocoMetric gives none.
    log("3", [train, {"coco/bbox_mAP": 0.3, "step": 1}, train, {"time": 0.1, "step": 2}])
    assert module.last_metric(tmp_path, "coco/bbox_mAP") == 0
    # Hooks log rows without a loss, too.
    inspected = {"assignment/step": 3, "step": 3}
    log("4", [train, {"coco/bbox_mAP": 0.4, "time": 0.1, "step": 2}, train, inspected])
    assert module.last_metric(tmp_path, "coco/bbox_mAP") == 0.4
    log("5", [train, inspected])
    with pytest.raises(InputError, match="has no evaluation"):
        module.last_metric(tmp_path, "coco/bbox_mAP")


def test_a_launcher_is_refused(module, capsys):
    with pytest.raises(SystemExit):
        module.parse_args(["config", "--grid", "a=1", "--launcher", "pytorch"])
    assert "--launcher: each training is one process here" in capsys.readouterr().err


def test_options_are_passed_on_to_the_training(module, tmp_path, monkeypatch):
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "last_metric", lambda work_dir, metric: 0.5)
    for flags in ([], ["--amp"], ["--trust-checkpoint"]):
        args = module.parse_args(["config", "--grid", "a=1", *flags])
        assert module.run(args, tmp_path / "c.py", tmp_path, "a=1", ["a=1"], "AP") == 0.5
        assert [word for word in commands.pop() if word in ("--amp", "--trust-checkpoint")] == flags


@pytest.fixture
def cross_validate(module, tiny_config, environ, tmp_path, monkeypatch):
    """Call the tool without its trainings; the options of each training that it starts."""
    monkeypatch.setenv("MISALIGN_DET_SHAPES", environ["MISALIGN_DET_SHAPES"])
    started = []

    def run(args, config, folder, name, options, metric):
        started.append(options)
        return 0.5

    monkeypatch.setattr(module, "run", run)

    def cross_validate(*words, work_dir=tmp_path / "cv"):
        del started[:]
        grid = ["--grid", "optim_wrapper.optimizer.lr=0.001"]
        module.main([str(tiny_config), "--work-dir", str(work_dir), *grid, "--folds=2", *words])
        return started

    return cross_validate


def test_results_of_another_experiment_are_refused(cross_validate, shapes, tmp_path):
    lr = ("optim_wrapper.optimizer.lr=0.001",)
    assert cross_validate() == [lr, lr]
    assert cross_validate("--trust-checkpoint") == []
    before = {path: path.read_text() for path in (tmp_path / "cv").glob("*.*")}
    assert len(before) == 7  # two folds of three files, and the results
    for words, said in (
        (["--folds=3"], "--folds was 2, is 3"),
        (["--seed=1"], "--seed was 0, is 1"),
        (["--amp"], "--amp was False, is True"),
        (["--cfg-options", "train_cfg.max_iters=9"], "train_cfg.max_iters was 1, is 9"),
        (["--data", str(shapes)], "train_dataloader.dataset."),
    ):
        with pytest.raises(SystemExit, match="results of another experiment") as end:
            cross_validate(*words)
        assert said in str(end.value)
    assert {path: path.read_text() for path in (tmp_path / "cv").glob("*.*")} == before


def test_a_work_dir_that_is_a_file(cross_validate, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="--work-dir .*file is a file, not a folder"):
        cross_validate(work_dir=tmp_path / "file")


@pytest.mark.slow
def test_runs_and_does_not_run_again(module, tiny_config, environ, tmp_path, monkeypatch, capsys):
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    arguments = [str(tiny_config), "--folds", "2", "--only", "1", "--work-dir", str(tmp_path),
                 "--grid", "optim_wrapper.optimizer.lr=0.001,0.0"]  # fmt: skip
    module.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("==>") for line in lines) == 2
    assert len(json.loads((tmp_path / "results.json").read_text())["results"]) == 2
    table = [line for line in lines if "+-" in line]
    assert len(table) == 2 and "lr=" in table[0]
    module.main(arguments)
    again = capsys.readouterr().out.splitlines()
    assert [line for line in again if "+-" in line] == table
    assert not any(line.startswith("==>") for line in again)
