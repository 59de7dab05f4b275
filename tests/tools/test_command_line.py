"""tools/train.py and tools/test.py: options, results, and what the user is told."""

import importlib.util
import pickle
import sys
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from mmdet.datasets.transforms import PackDetInputs
from mmengine.config import Config

from misalign_det.errors import InputError

TRAIN = [sys.executable, ROOT / "tools/train.py"]
TEST = [sys.executable, ROOT / "tools/test.py"]


def load(name):
    """tools/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / f"tools/{name}.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture
def refused(monkeypatch, tmp_path, environ):
    """Call a tool that ends with an error; what it says, white space evened out."""
    monkeypatch.setenv("MISALIGN_DET_SHAPES", environ["MISALIGN_DET_SHAPES"])
    monkeypatch.chdir(tmp_path)

    def refused(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            load(name).main()
        return " ".join(str(end.value).split())

    return refused


def test_help_leaves_mims_own_flag_out(capsys):
    for name, options in (
        ("train", ["--amp", "--auto-scale-lr", "--resume"]),
        ("test", ["--show", "--show-dir", "--wait-time", "--out", "--tta"]),
    ):
        with pytest.raises(SystemExit):
            load(name).parse_args(["-h"])
        text = capsys.readouterr().out
        assert "--gpus" not in text  # mim would pass its own --gpus on to a tool that knows one
        for option in [
            *options,
            "--work-dir",
            "--cfg-options",
            "--launcher",
            "--local_rank",
            "--local-rank",
            "--trust-checkpoint",
            "--no-preflight",
        ]:
            assert option in text


@pytest.mark.parametrize("spelling", ["--local_rank", "--local-rank"])
@pytest.mark.parametrize("name", ["train", "test"])
def test_both_spellings_of_local_rank(name, spelling):
    needed = ["config.py", "checkpoint.pth"][: 1 if name == "train" else 2]
    assert load(name).parse_args([*needed, f"{spelling}=3"]).local_rank == 3


def tta(**keys):
    """The config that test.py makes of this one for --tta."""
    cfg = Config(dict(model=dict(type="FCOS"), **keys))
    load("test").use_test_time_augmentation(cfg)
    return cfg


STEPS = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(64, 64))]
PACK = dict(type="PackDetInputs", meta_keys=("img_id",))


def test_tta_reaches_every_data_set_inside_wrappers():
    other = [dict(type="LoadImageFromFile", to_float32=True)]
    parts = [dict(ann_file="a", pipeline=[*STEPS, PACK]),
             dict(type="RepeatDataset", dataset=dict(
                 ann_file="b", pipeline=[*other, dict(PACK, type="mmdet.PackDetInputs")])),
             dict(ann_file="c", pipeline=[*other, dict(PACK, type=PackDetInputs)])]  # fmt: skip
    cfg = tta(test_dataloader=dict(dataset=dict(type="ConcatDataset", datasets=parts)))
    first, second, third = cfg.test_dataloader.dataset.datasets
    pipelines = [first.pipeline, second.dataset.pipeline, third.pipeline]
    assert [step.type for step in first.pipeline] == ["LoadImageFromFile", "Resize", "TestTimeAug"]
    assert second.dataset.pipeline[0].to_float32 and len(second.dataset.pipeline) == 2
    for pipeline in pipelines:
        flips, pack = pipeline[-1].transforms
        assert [flip.prob for flip in flips] == [1.0, 0.0]
        assert {"flip", "flip_direction", "img_id"} <= set(pack[0].meta_keys)
    assert cfg.model.type == "DetTTAModel" and cfg.model.module.type == "FCOS"
    assert cfg.model.tta_cfg.nms.iou_threshold == 0.5 and cfg.model.tta_cfg.max_per_img == 100


def test_tta_of_the_config_itself():
    pipeline = [dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=[])]
    cfg = tta(
        test_dataloader=dict(dataset=dict(ann_file="a")),
        tta_pipeline=pipeline,
        tta_model=dict(type="MyTTA"),
    )
    assert cfg.test_dataloader.dataset.pipeline == pipeline
    assert cfg.model.type == "MyTTA" and cfg.model.module.type == "FCOS"


def test_tta_of_a_pipeline_that_ends_otherwise_names_it():
    for pipeline in ([], [*STEPS, dict(type="Mine")], [PACK, dict(type="Mine")]):
        with pytest.raises(InputError, match="--tta: test_dataloader.dataset.datasets.0.pipeline"):
            tta(
                test_dataloader=dict(
                    dataset=dict(
                        type="ConcatDataset", datasets=[dict(ann_file="a", pipeline=pipeline)]
                    )
                )
            )


def test_a_missing_checkpoint_is_said_before_data_and_config(refused, tiny_config, capfd):
    nothing = ["--work-dir", "work", "--cfg-options", "data_root=nowhere"]
    assert refused("test", tiny_config, "x.pth", *nothing) == (
        "test.py: error: there is no checkpoint x.pth"
    )
    for given in (["--resume", "x.pth", *nothing], [*nothing, "load_from=x.pth"]):
        assert refused("train", tiny_config, *given) == (
            "train.py: error: there is no checkpoint x.pth"
        )
    assert "model = dict(" not in capfd.readouterr().out
    assert not Path("work").exists()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("optim_wrapper.optimizer.type=Foo", "optim_wrapper.optimizer.type: mmdet has no optim"),
        ("train_dataloader.sampler.type=Foo", "train_dataloader.sampler.type: mmdet has no data "),
        ("val_evaluator.type=Foo", "val_evaluator.type: mmdet has no metric 'Foo'"),
        ("optim_wrapper.optimizer.lr=fast", "--cfg-options optim_wrapper.optimizer.lr=fast: it "),
        ("model.neck.out_channels=many", "--cfg-options model.neck.out_channels=many: 'many'"),
    ],
)
def test_wrong_options_are_said_before_the_data(option, text, refused, tiny_config):
    options = ["data_root=nowhere", option]
    said = refused("train", tiny_config, "--work-dir", "work", "--cfg-options", *options)
    assert said.startswith(f"train.py: error: {text}") and "\n" not in said
    assert not Path("work").exists()


def test_missing_weights_are_said_before_the_data(refused, tiny_config, tmp_path):
    config = tmp_path / "other.py"
    weights = "dict(_delete_=True, type='Pretrained', checkpoint='/nowhere.pth')"
    config.write_text(
        f"_base_ = '{tiny_config}'\nmodel = dict(backbone=dict(init_cfg={weights}))\n"
    )
    nothing = ["--work-dir", "work", "--cfg-options", "data_root=nowhere"]
    assert refused("train", config, *nothing) == (
        "train.py: error: model.backbone.init_cfg.checkpoint: there is no checkpoint /nowhere.pth "
        "(model.backbone.init_cfg=None trains without)"
    )
    torch.save({"state_dict": {}}, "x.pth")  # which is tested without them
    assert "there is no annotation file nowhere" in refused("test", config, "x.pth", *nothing)


def test_what_the_evaluator_refuses(refused, tiny_config, environ):
    options = [f"data_root={environ['MISALIGN_DET_SHAPES']}", "val_evaluator.metric=foo"]
    said = refused("train", tiny_config, "--work-dir", "work", "--cfg-options", *options)
    assert said.startswith(
        "train.py: error: val_evaluator: CocoMetric cannot be built (KeyError: metric should be one"
    )


def test_resuming_nothing(refused, tiny_config):
    text = refused("train", tiny_config, "--work-dir", "work", "--resume")
    assert text.startswith("train.py: error: there is nothing to resume in work")
    text = refused(
        "train",
        tiny_config,
        "--work-dir",
        "work",
        "--resume",
        "auto",
        "--cfg-options",
        "data_root=nowhere",
    )  # goes on, up to the data
    assert "there is no annotation file nowhere" in text


def test_a_work_dir_that_is_a_file_is_said_before_the_data(refused, tiny_config):
    Path("work").write_text("")
    text = refused("train", tiny_config, "--work-dir", "work", "--cfg-options", "data_root=nowhere")
    assert text.startswith("train.py: error: nothing can be written to the work dir work")


@pytest.mark.parametrize("nothing", ["dict(_delete_=True)", "None"])
def test_learning_rate_without_base_batch_size(nothing, refused, tiny_config, tmp_path):
    config = tmp_path / "other.py"
    config.write_text(f"_base_ = '{tiny_config}'\nauto_scale_lr = {nothing}\n")
    text = refused("train", config, "--auto-scale-lr")
    assert "auto_scale_lr=dict(base_batch_size=16)" in text and "Traceback" not in text


@pytest.mark.parametrize("nothing", ["dict(_delete_=True)", "None"])
def test_pictures_need_the_hook(nothing, refused, tiny_config, tmp_path):
    config = tmp_path / "other.py"
    config.write_text(f"_base_ = '{tiny_config}'\ndefault_hooks = {nothing}\n")
    torch.save({"state_dict": {}}, "x.pth")
    assert "DetVisualizationHook" in refused("test", config, "x.pth", "--show-dir", "pictures")


@pytest.mark.slow
def test_training_saves_checkpoint_and_config(trained):
    assert (trained / "last_checkpoint").read_text() == str(trained / "iter_1.pth")
    # Not tiny.py: onedl-mim would find a second file of the config's name in the repository.
    assert sorted(path.name for path in trained.glob("*.py")) == ["config.py"]
    saved = Config.fromfile(trained / "config.py")  # what tools/train.py adds is in it
    assert saved.default_hooks.checkpoint.type == "AtomicCheckpointHook"
    assert saved.train_dataloader.dataset.pipeline[0]._scope_ == "misalign_det"
    state = torch.load(trained / "iter_1.pth", weights_only=False)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.slow
def test_evaluation_with_every_output(trained, tiny_config, call, tmp_path):
    text = call(
        [
            *TEST,
            tiny_config,
            trained / "iter_1.pth",
            "--work-dir",
            tmp_path / "work",
            "--out",
            tmp_path / "out.pkl",
            "--show-dir",
            "pictures",
            "--tta",
        ],
        tmp_path,
    )
    assert "bbox_mAP_50" in text
    detections = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert len(detections) == 4
    assert detections[0]["pred_instances"]["bboxes"].shape[1] == 4
    assert len(list(tmp_path.glob("work/*/pictures/*"))) == 4


@pytest.mark.slow
def test_resume_with_scaled_learning_rate(trained, tiny_config, call, tmp_path):
    text = call(
        [
            *TRAIN,
            tiny_config,
            "--work-dir",
            tmp_path,
            "--resume",
            trained / "iter_1.pth",
            "--auto-scale-lr",
            "--cfg-options",
            "train_cfg.max_iters=2",
        ],
        tmp_path,
    )
    assert "resumed epoch: 0, iter: 1" in text
    assert "Scaling the original LR by 0.125." in text  # a batch of 2, and not of 16
    assert (tmp_path / "iter_2.pth").is_file() and not (tmp_path / "iter_1.pth").exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU --amp is mmengine's own")
def test_mixed_precision_without_a_gpu(tiny_config, call, tmp_path):
    call([*TRAIN, tiny_config, "--work-dir", tmp_path, "--amp"], tmp_path)
    assert "BFloat16OptimWrapper" in (tmp_path / "config.py").read_text()
    state = torch.load(tmp_path / "iter_1.pth", weights_only=False)["state_dict"]
    assert all(v.dtype != torch.bfloat16 and v.isfinite().all() for v in state.values())


def test_unknown_config_names_near_ones(refused):
    text = refused("train", "jla_tripelhead_r50_fpn_1x_coco")
    assert text.startswith("train.py: error: there is no config 'jla_tripelhead_r50_fpn_1x_coco'")
    assert "Near matches: jla_triplehead_r50_fpn_1x_coco" in text


@pytest.mark.parametrize("suffix", ["", ".py"])
def test_bare_name_finds_the_packaged_config(refused, suffix):
    """The data is not there, which the tool says once it has read the config."""
    name = f"jla_triplehead_r50_fpn_1x_coco{suffix}"
    text = refused("train", name, "--cfg-options", "data_root=nowhere")
    assert "there is no annotation file nowhere/annotations/instances_train2017.json" in text


@pytest.mark.slow
@pytest.mark.parametrize("way", ["test", "resume", "load_from"])
def test_checkpoint_of_another_architecture(refused, trained, tiny_config, way):
    checkpoint = trained / "iter_1.pth"
    given = {"test": [checkpoint], "resume": ["--resume", checkpoint], "load_from": []}[way]
    deeper = [
        "--work-dir",
        "work",
        "--cfg-options",
        "model.backbone.depth=50",
        "model.neck.in_channels=[256,512,1024,2048]",
        f"load_from={checkpoint}",
    ]
    text = refused("test" if way == "test" else "train", tiny_config, *given, *deeper)
    assert text.startswith(f"{'test' if way == 'test' else 'train'}.py: error: {checkpoint}: ")
    assert "Missing: backbone.layer1.0.conv3.weight" in text
    assert (
        "The checkpoint holds FCOS with TripleHead on ResNet (depth 18); the config's model is "
        "FCOS with TripleHead on ResNet (depth 50)."
    ) in text


class _Touch:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.slow
def test_pickles_with_code_are_refused_unless_trusted(
    refused, trained, tiny_config, call, tmp_path
):
    checkpoint = torch.load(trained / "iter_1.pth", weights_only=False)
    checkpoint["meta"]["extra"] = _Touch(tmp_path / "ran")
    path = tmp_path / "unsafe.pth"
    torch.save(checkpoint, path)
    text = refused("test", tiny_config, path, "--work-dir", "work")
    assert text.startswith(f"test.py: error: {path} was refused")
    assert "--trust-checkpoint" in text and f"It asks for {open.__module__}.open." in text
    assert not (tmp_path / "ran").exists()
    command = [*TEST, tiny_config, path, "--work-dir", "work", "--trust-checkpoint"]
    assert "bbox_mAP_50" in call(command, tmp_path)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_missing_and_damaged_checkpoints(refused, tiny_config, tmp_path, content):
    path = tmp_path / "bad.pth"
    if content is not None:
        path.write_bytes(content)
    text = refused("test", tiny_config, path, "--work-dir", "work")
    what = f"there is no checkpoint {path}" if content is None else str(path)
    assert text.startswith(f"test.py: error: {what}")


def test_out_has_to_be_a_pickle(refused, tiny_config, capsys):
    assert refused("test", tiny_config, "x.pth", "--out", "detections.json") == "2"
    assert "--out detections.json" in capsys.readouterr().err
