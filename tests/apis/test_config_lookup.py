"""From what was typed to a config file."""

import argparse
from pathlib import Path

import pytest

from misalign_det.apis import config_lookup
from misalign_det.apis.cli import load_config
from misalign_det.apis.config_lookup import (
    OPTIONS_36E,
    find_config,
    packaged_configs,
    resolve_config,
)
from misalign_det.errors import ConfigNotFoundError
from misalign_det.utils.old_names import RenamedWarning

KNOWN = {"fcos_r50": Path("/p/fcos_r50.py"), "triplehead_r50": Path("/p/triplehead_r50.py")}


@pytest.mark.parametrize("typed", ["fcos_r50", "fcos_r50.py", "configs/fcos_r50.py"])
def test_packaged_configs_are_found_by_name(typed):
    assert resolve_config(typed, KNOWN) == "/p/fcos_r50.py"


def test_a_file_comes_before_a_packaged_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fcos_r50.py").touch()
    assert resolve_config("fcos_r50.py", KNOWN) == "fcos_r50.py"
    assert resolve_config("fcos_r50", KNOWN) == "fcos_r50.py"


def test_near_matches_are_listed_best_first():
    with pytest.raises(ConfigNotFoundError, match=r"no config 'x/triplhead_r50.py'") as error:
        resolve_config("x/triplhead_r50.py", KNOWN)
    assert str(error.value).splitlines()[1:] == ["    triplehead_r50"]
    with pytest.raises(ConfigNotFoundError, match="The configs of this package:\n    fcos_r50\n"):
        resolve_config("zzz", KNOWN)


def test_where_the_packaged_configs_are(tmp_path, monkeypatch):
    assert "jla_triplehead_r50_fpn_1x_coco" in packaged_configs()
    # a wheel: no pyproject.toml beside the package
    monkeypatch.setattr(config_lookup, "PACKAGE", tmp_path / "misalign_det")
    folder = tmp_path / "misalign_det/.mim/configs"
    (folder / "_base_").mkdir(parents=True)
    (folder / "one.py").touch()
    (folder / "_base_/base.py").touch()
    assert packaged_configs() == {"one": folder / "one.py"}


@pytest.mark.parametrize("typed", ["{}", "{}.py", "configs/{}.py", "/gone/configs/{}.py"])
def test_a_renamed_config_is_found_by_its_old_name(typed):
    new = {"retinanet_r18_fpn_12e_bccd": Path("/p/new.py")}
    with pytest.warns(RenamedWarning) as caught:
        found = find_config(typed.format("plain_retinanet_r18_fpn_12e_bccd"), new)
    assert found == ("/p/new.py", {}, "plain_retinanet_r18_fpn_12e_bccd")
    assert [str(w.message) for w in caught] == [
        "the config plain_retinanet_r18_fpn_12e_bccd is now called retinanet_r18_fpn_12e_bccd."
    ]


def test_a_file_comes_before_an_old_name(tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    Path("plain_retinanet_r18_fpn_12e_bccd.py").touch()
    assert find_config("plain_retinanet_r18_fpn_12e_bccd").options == {}
    assert not recwarn


def options_of_the_command_line(config, **cfg_options):
    return argparse.Namespace(
        config=config, cfg_options=cfg_options, work_dir=None, launcher="none", local_rank=0
    )


def test_the_old_schedule_of_36_epochs():
    """The options come with the old name, the user's own count, and the run keeps its old name."""
    message = (
        "the config fcos_r18_fpn_36e_bccd is now fcos_r18_fpn_12e_bccd with --cfg-options "
        "train_cfg.max_epochs=36 train_cfg.val_interval=12 param_scheduler.1.end=36 "
        "param_scheduler.1.milestones=24,33."
    )
    args = options_of_the_command_line(
        "configs/fcos_r18_fpn_36e_bccd.py", **{"train_cfg.val_interval": 6}
    )
    with pytest.warns(RenamedWarning) as caught:
        cfg = load_config(args)
    assert [str(w.message) for w in caught if w.category is RenamedWarning] == [message]
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (36, 6)
    assert (cfg.param_scheduler[1].end, cfg.param_scheduler[1].milestones) == (36, [24, 33])
    assert cfg.work_dir == "work_dirs/fcos_r18_fpn_36e_bccd"
    assert cfg.experiment_name == "fcos_r18_fpn_36e_bccd"
    # and one run does not change what the next one gets
    assert OPTIONS_36E["param_scheduler.1.milestones"] == [24, 33]
