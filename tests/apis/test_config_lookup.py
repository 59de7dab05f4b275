"""From what was typed to a config file."""

from pathlib import Path

import pytest

from misalign_det.apis import config_lookup
from misalign_det.apis.config_lookup import packaged_configs, resolve_config
from misalign_det.errors import ConfigNotFoundError

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
