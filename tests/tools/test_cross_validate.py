"""cross_validate.py: folds, combinations, and two real runs."""

import json

import pytest
from tiny_detectors import tool

from misalign_det.engine.annotation_checks import InputError


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


@pytest.mark.slow
def test_runs_and_does_not_run_again(module, tiny_config, environ, tmp_path, monkeypatch, capsys):
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    arguments = [str(tiny_config), "--folds", "2", "--only", "1", "--work-dir", str(tmp_path),
                 "--grid", "optim_wrapper.optimizer.lr=0.001,0.0"]  # fmt: skip
    module.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("==>") for line in lines) == 2
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2
    table = [line for line in lines if "+-" in line]
    assert len(table) == 2 and "lr=" in table[0]
    module.main(arguments)
    again = capsys.readouterr().out.splitlines()
    assert [line for line in again if "+-" in line] == table
    assert not any(line.startswith("==>") for line in again)
