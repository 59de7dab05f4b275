"""What the tools' arguments do to a config, and what they refuse."""

import argparse
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from misalign_det.apis.cli import (
    add_common_arguments,
    add_preflight_argument,
    add_renamed_option,
    build_runner,
    load_config,
    pair_detectors,
    prepare_work_dir,
)
from misalign_det.errors import ConfigError, InputError
from misalign_det.utils.old_names import RenamedWarning


def arguments(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    add_common_arguments(parser)
    add_preflight_argument(parser)
    return parser.parse_args(list(map(str, words)))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("a = 1\npreflight = dict(extra_categories='skip')\n")
    return path


def test_options_are_mmengines(config):
    args = arguments(config, "--cfg-options", "a=2", "b.c=[1,2]", "d=x=y", "e=")
    assert args.cfg_options == {"a": 2, "b.c": [1, 2], "d": "x=y", "e": ""}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data_root=/tmp/data set/x", "/tmp/data set/x"),
        ("work_dir=work dirs/x, new", "work dirs/x, new"),
        ("val_evaluator.ann_file=a,b.json", "a,b.json"),
        ("model.backbone.init_cfg.checkpoint='my weights.pth'", "my weights.pth"),
        ("train_dataloader.dataset.data_prefix.img=new images/", "new images/"),
        ("load_from=None", None),
        ("load_from=[1] x.pth", "[1] x.pth"),
        ("data_root=2012", "2012"),
        ("model.backbone.pretrained=False", False),
        ("val_evaluator.ann_file=[a b.json,c.json]", ["a b.json", "c.json"]),
        ("metainfo.classes=[traffic light,car]", ["traffic light", "car"]),
        ("metainfo.classes=traffic light, car", ["traffic light", "car"]),
        ("a=1 6", "1 6"),
        ("a= 16 ", 16),
        ("model.test_cfg.max_per_img=100", 100),
        ("a=[(1, 2), None, [1e-3]]", [(1, 2), None, [0.001]]),
        ("a=(640, 480)", (640, 480)),
        ("a=[]", []),
        ("a=1,", [1]),
        ("a=foo(1", "foo(1"),
    ],
)
def test_spaces_and_paths_stay(config, option, value):
    (found,) = arguments(config, "--cfg-options", option).cfg_options.values()
    assert found == value and type(found) is type(value)


def test_an_empty_name_of_a_folder_is_an_error(config):
    """Of an unset variable in quotes; the config's own data must not be taken for it."""
    with pytest.raises(InputError, match="--data is empty"):
        load_config(arguments(config, "--data", ""))


def test_the_launcher_has_an_option_of_its_own(config):
    with pytest.raises(InputError, match="no effect. Give --launcher pytorch"):
        load_config(arguments(config, "--cfg-options", "launcher=pytorch"))


def test_no_workers_on_the_command_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("train_dataloader = dict(num_workers=2, persistent_workers=True)\n")
    cfg = load_config(arguments(path, "--cfg-options", "train_dataloader.num_workers=0"))
    assert cfg.train_dataloader == dict(num_workers=0, persistent_workers=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("stray", "--cfg-options: 'stray' is not KEY=VALUE"),
        ("=3", "--cfg-options: '=3' is not KEY=VALUE"),
        ("a=[1,(2,3]", "--cfg-options a: the brackets in '[1,(2,3]' do not match."),
    ],
)
def test_a_stray_word_is_an_error_of_the_command_line(config, capsys, option, message):
    with pytest.raises(SystemExit) as end:
        arguments(config, "--cfg-options", "b=1", option)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_config_work_dir_name_and_preflight(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(arguments(config))
    assert cfg.work_dir == "work_dirs/mine" and cfg.experiment_name == "mine"
    assert cfg.launcher == "none" and cfg.preflight == {"extra_categories": "skip"}
    cfg = load_config(arguments(config, "--work-dir", "w", "--no-preflight"))
    assert cfg.work_dir == "w"
    assert cfg.preflight == {"extra_categories": "skip", "enabled": False}
    config.write_text("work_dir = 'own'\nexperiment_name = 'n'\npreflight = None\n")
    cfg = load_config(arguments(config, "--no-preflight"))
    assert (cfg.work_dir, cfg.experiment_name, cfg.preflight) == ("own", "n", {"enabled": False})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = (,)\n", r"the config \S*mine.py has a syntax error: .*line 2"),
        (
            "a = 1\n\nb = missing\n",
            r"cannot be read \(\S*mine.py, line 3\): NameError: .*'missing'",
        ),
        ("a = dict()\nb = a['x']\n", r"cannot be read \(\S*mine.py, line 2\): KeyError: 'x'"),
        ("_base_ = 'none.py'\n", r"the config \S*mine.py cannot be read.*none.py"),
        ("custom_imports = dict(imports=['no_such_module'])", "cannot be read.*no_such_module"),
    ],
)
def test_a_config_that_cannot_be_read_is_named_with_the_line(config, text, message):
    config.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(arguments(config))
    assert "\n" not in str(error.value)


def test_a_syntax_error_in_a_base_names_the_base(config, tmp_path):
    (tmp_path / "below.py").write_text("b = (,)\n")
    config.write_text("_base_ = 'below.py'\n")
    with pytest.raises(ConfigError, match="the config .*below.py has a syntax error"):
        load_config(arguments(config))


def test_an_error_in_a_module_that_the_config_imports_keeps_its_traceback(
    config, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module_of_mine.py").write_text("1 / 0\n")
    config.write_text("custom_imports = dict(imports=['broken_module_of_mine'])\n")
    with pytest.raises(ZeroDivisionError):
        load_config(arguments(config))


def test_pairs_of_config_and_checkpoint():
    parser = argparse.ArgumentParser()
    args = SimpleNamespace(detectors=["a/x.py", "1.pth", "y.py", "2.pth"], names=None)
    pair_detectors(parser, args)
    assert args.pairs == [("a/x.py", "1.pth"), ("y.py", "2.pth")] and args.names == ["x", "y"]
    for detectors, names in ((["x.py"], None), (["x.py", "1.pth"], ["a", "b"])):
        with pytest.raises(SystemExit):
            pair_detectors(parser, SimpleNamespace(detectors=detectors, names=names))


def test_a_work_dir_that_cannot_be_written_is_named(tmp_path):
    prepare_work_dir(Config({"work_dir": str(tmp_path / "a/b")}))
    assert list((tmp_path / "a/b").iterdir()) == []
    prepare_work_dir(Config({"work_dir": str(tmp_path / "a/b")}))
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below", "/proc/no/folder", "/proc"):
        with pytest.raises(
            InputError, match=f"nothing can be written to the work dir {folder}: .*--work-dir"
        ):
            prepare_work_dir(Config({"work_dir": str(folder)}))


def test_parts_that_do_not_fit_together_build_no_runner():
    model = dict(bbox_head=dict(type="FCOSHead"), train_cfg=dict(assigner=dict(type="JLAAssigner")))
    with pytest.raises(InputError, match="FCOSHead, which never calls an assigner"):
        build_runner(Config(dict(model=model)))


def test_a_renamed_option(capsys):
    parser = argparse.ArgumentParser(prog="tool.py")
    parser.add_argument("--num-images", type=int, required=True)
    add_renamed_option(parser, "--num", "--num-images")
    with pytest.warns(RenamedWarning, match="tool.py: --num is now called --num-images."):
        assert parser.parse_args(["--num", "3"]).num_images == 3
    with pytest.raises(SystemExit):
        parser.parse_args(["-h"])
    assert "--num " not in capsys.readouterr().out
