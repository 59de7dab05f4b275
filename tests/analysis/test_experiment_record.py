"""Results are kept with what they depend on, and refused where it differs."""

import json
from functools import partial

import pytest
from mmengine.config import Config

from misalign_det.analysis.experiment_record import (
    describe_experiment,
    kept_results,
    save_results,
)
from misalign_det.errors import InputError

ANNOTATIONS = {"images": [{"id": 1}]}
OPTIONS = {"--folds": 4, "--seed": 0}


def config(**changes):
    given = dict(
        model=dict(type="FCOS", sizes=[1, 2], neck=None),
        train_cfg=dict(max_epochs=12),
        train_dataloader=dict(num_workers=2, collate_fn=partial(config)),
        work_dir="work_dirs/a",
    )
    return Config({**given, **changes})


def described(cfg=None, annotations=ANNOTATIONS, **options):
    return describe_experiment(cfg or config(), annotations, {**OPTIONS, **options})


def test_what_is_described():
    found = described()
    assert found["--folds"] == "4" and found["train_cfg.max_epochs"] == "12"
    assert found["model.sizes.1"] == "2" and found["model.neck"] == "None"
    assert not {"model", "work_dir", "train_dataloader.num_workers"} & set(found)
    assert "function config" in found["train_dataloader.collate_fn"]
    assert " at 0x" not in found["train_dataloader.collate_fn"]
    assert described(config(work_dir="b", train_dataloader=config().train_dataloader)) == found


def test_the_same_experiment_goes_on(tmp_path):
    record = tmp_path / "results.json"
    assert kept_results(record, described()) == {}
    save_results(record, {"fold0 a=1": 0.5}, described())
    assert kept_results(record, described()) == {"fold0 a=1": 0.5}


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (dict(options={"--folds": 2}), "--folds was 4, is 2"),
        (dict(options={"--amp": True}), "--amp was not set, is True"),
        (dict(cfg=config(train_cfg=dict(max_epochs=1))), "train_cfg.max_epochs was 12, is 1"),
        (dict(cfg=config(train_cfg=None)), "train_cfg was not set, is None"),
        (dict(cfg=config(train_cfg={})), "train_cfg.max_epochs was 12, is not set"),
        (dict(annotations={"images": []}), "checksum of the annotations was"),
    ],
)
def test_another_experiment_is_refused(tmp_path, experiment, message):
    record = tmp_path / "results.json"
    save_results(record, {"fold0 a=1": 0.5}, described())
    options = experiment.pop("options", {})
    with pytest.raises(InputError, match="results of another experiment") as caught:
        kept_results(record, described(**experiment, **options))
    assert message in str(caught.value) and "Choose another --work-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_few_of_many_differences_are_named(tmp_path):
    record = tmp_path / "results.json"
    save_results(record, {}, described())
    with pytest.raises(InputError, match=r"--folds was 4, is 1; .* and 2 more\. Choose"):
        kept_results(record, described(**dict.fromkeys(("--folds", *"abcd"), 1)))


def test_a_record_of_an_earlier_version_is_refused(tmp_path):
    record = tmp_path / "results.json"
    record.write_text(json.dumps({"fold0 a=1": 0.5}))
    with pytest.raises(InputError, match="does not say which config.*Choose another --work-dir"):
        kept_results(record, described())
