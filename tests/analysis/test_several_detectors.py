"""The configs of several detectors: all are checked, in their order."""

import argparse

import pytest

from misalign_det.analysis.several_detectors import load_configs
from misalign_det.apis.cli import add_common_arguments
from misalign_det.errors import CheckpointError, ConfigNotFoundError


@pytest.fixture
def args(tmp_path):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    args = parser.parse_args([])
    args.pairs = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(f"model = dict(type={name!r})\n")
        (tmp_path / f"{name}.pth").write_text("")
        args.pairs.append((str(tmp_path / f"{name}.py"), str(tmp_path / f"{name}.pth")))
    return args


def test_each_config_is_checked_in_turn(args):
    checked = []
    found = load_configs(args, lambda cfg: checked.append((cfg.model.type, args.checkpoint)))
    assert [cfg.model.type for cfg in found] == ["a", "b"]
    assert checked == [("a", args.pairs[0][1]), ("b", args.pairs[1][1])]


def test_what_is_not_there_is_named(args):
    config, checkpoint = args.pairs[1]
    args.pairs[1] = (config, "none.pth")
    with pytest.raises(CheckpointError, match="there is no checkpoint none.pth"):
        load_configs(args, lambda cfg: None)
    args.pairs[1] = ("none.py", checkpoint)
    with pytest.raises(ConfigNotFoundError, match="none.py"):
        load_configs(args, lambda cfg: None)
